package io.gatun.bindings;

/// What [LibrariesTest] runs in a JVM of its own: opens libraries and says what came of it.
final class OpenLibraries {
    static final int REFUSED = 3;

    private OpenLibraries() {}

    /// For each of `platform`, `gatun` and `onednn` one line, and then one for each file in use. The exit status is
    /// [#REFUSED] when a library could not be opened.
    public static void main(String[] wanted) {
        boolean refused = false;
        for (String name : wanted) {
            try {
                switch (name) {
                    case "platform" -> System.out.println(Libraries.platform());
                    case "gatun" -> System.out.println("gatun " + Libraries.gatun().find("gt_add").isPresent());
                    case "onednn" -> System.out.println(
                            "onednn " + Libraries.oneDnn().find("dnnl_version").isPresent());
                    default -> throw new IllegalArgumentException(name);
                }
            } catch (LibraryException e) {
                refused = true;
                System.out.println("refused: " + e.getMessage());
            }
        }
        for (Libraries.Opened library : Libraries.opened()) {
            System.out.println("file " + library.file());
        }
        System.exit(refused ? REFUSED : 0);
    }
}
