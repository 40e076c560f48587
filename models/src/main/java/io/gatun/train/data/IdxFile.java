package io.gatun.train.data;

import io.gatun.io.IoReason;
import io.gatun.runtime.GatunException;
import java.io.BufferedInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.zip.GZIPInputStream;

/// A file in the format of MNIST, plain or gzipped: 0, 0, type of the values, number of dimensions, each dimension as
/// an i32 (big endian), the values. Only unsigned bytes (type 8) are read. LeCun, Cortes and Burges 1998.
///
/// @param shape outermost dimension first, 1 to 4 of them
/// @param data  the values, 0 to 255
record IdxFile(int[] shape, byte[] data) {
    private static final int UNSIGNED_BYTE = 8;
    private static final int MAX_RANK = 4;
    private static final int GZIP_MAGIC = 0x1f8b;

    /// @param rank how many dimensions the caller needs
    /// @throws GatunException when the file is missing, damaged or of another kind
    static IdxFile read(Path file, int rank) {
        if (!Files.isRegularFile(file)) {
            throw GatunException.invalid("%s: no such file", file);
        }
        try (InputStream in = open(file)) {
            int magic = readInt(in);
            int type = magic >> 8;
            if (type != UNSIGNED_BYTE || (magic & 0xff) != rank || rank > MAX_RANK) {
                throw GatunException.invalid("%s begins with 0x%08x, expected 0x%08x: an idx file of unsigned bytes in"
                        + " %d dimensions", file, magic, UNSIGNED_BYTE << 8 | rank, rank);
            }
            int[] shape = new int[rank];
            long size = 1;
            for (int i = 0; i < rank; i++) {
                shape[i] = readInt(in);
                if (shape[i] < 1 || (size *= shape[i]) > Integer.MAX_VALUE - 8) {
                    throw GatunException.invalid("%s: dimension %d is %d, expected sizes from 1 with a product below"
                            + " 2^31", file, i, shape[i]);
                }
            }
            byte[] data = in.readNBytes((int) size); // grows with what is there, not with what the header says
            if (data.length < size || in.read() >= 0) {
                throw GatunException.invalid("%s: %s than the %,d values of its shape %s. Copy or download it again",
                        file, data.length < size ? "only %,d values, fewer".formatted(data.length) : "more bytes",
                        size, Arrays.toString(shape));
            }
            return new IdxFile(shape, data);
        } catch (EOFException e) {
            throw new GatunException(GatunException.Status.INVALID_ARGUMENT, file + ": ends too early: copy or download"
                    + " it again", e);
        } catch (IOException e) {
            throw new GatunException(GatunException.Status.INVALID_ARGUMENT, file + ": cannot be read: "
                    + IoReason.of(e), e);
        }
    }

    private static InputStream open(Path file) throws IOException {
        InputStream in = new BufferedInputStream(Files.newInputStream(file), 1 << 16);
        try {
            in.mark(2);
            int first = in.read() << 8 | in.read();
            in.reset();
            return first == GZIP_MAGIC ? new GZIPInputStream(in, 1 << 16) : in;
        } catch (IOException e) {
            in.close();
            throw e;
        }
    }

    private static int readInt(InputStream in) throws IOException {
        byte[] four = in.readNBytes(Integer.BYTES);
        if (four.length < Integer.BYTES) {
            throw new EOFException();
        }
        return (four[0] & 0xff) << 24 | (four[1] & 0xff) << 16 | (four[2] & 0xff) << 8 | four[3] & 0xff;
    }
}
