package io.gatun.cli;

/// A picocli command that another jar adds to `gatun`, found by [java.util.ServiceLoader].
public interface CliCommand {}
