package io.gatun.cli;

import picocli.CommandLine.IVersionProvider;

/// The version from the build.
final class Version implements IVersionProvider {
    Version() {}

    @Override
    public String[] getVersion() {
        return new String[] {"gatun " + text(), "Java " + Runtime.version()};
    }

    static String text() {
        String version = Main.class.getPackage().getImplementationVersion();
        return version == null ? "(not packaged)" : version;
    }
}
