package rs.kinglet;

import java.nio.charset.StandardCharsets;

/**
 * A model that classifies texts, for Android and desktop JVMs, also from Kotlin. Any number of threads may use it at the same time.
 *
 * <p>Needs the native library {@code kinglet_jni}: {@code kinglet_jni.c} linked with {@code libkinglet}.
 */
public final class Kinglet implements AutoCloseable {
  static {
    System.loadLibrary("kinglet_jni");
  }

  /** The answer for a text. */
  public static final class Answer {
    /** The most likely label. */
    public final String label;
    /** Its probability, 0 to 1; calibrated if the model is. */
    public final float probability;
    /** Whether the label is not likely enough to be the answer. */
    public final boolean unsure;

    Answer(String label, float probability, boolean unsure) {
      this.label = label;
      this.probability = probability;
      this.unsure = unsure;
    }
  }

  private final Object lock = new Object();
  /** The native handle, 0 when closed. */
  private long model;
  /** Number of calls that currently use the handle. */
  private int users;

  /**
   * Creates a model from the bytes of a model.kinglet file, such as an asset; they are copied and checked.
   *
   * @throws IllegalArgumentException if they are not a bundle; the message says why
   */
  public Kinglet(byte[] bundle) {
    model = fromBytes(bundle);
  }

  /**
   * Creates a model from a file, which is mapped into memory and checked.
   *
   * @throws IllegalArgumentException if it cannot be read or is not a bundle; the message says why
   */
  public Kinglet(String path) {
    model = open((path + '\0').getBytes(StandardCharsets.UTF_8));
  }

  /**
   * Classifies one text.
   *
   * @throws IllegalStateException if the model is closed
   */
  public Answer classify(String text) {
    byte[] utf8 = text.getBytes(StandardCharsets.UTF_8);
    long handle = take();
    try {
      return (Answer) classify(handle, utf8);
    } finally {
      release();
    }
  }

  /** Returns the names of the labels. */
  public String[] labels() {
    long handle = take();
    try {
      return labels(handle);
    } finally {
      release();
    }
  }

  /** Frees the model once no call uses it any more. */
  @Override
  public void close() {
    synchronized (lock) {
      boolean interrupted = false;
      while (users > 0) {
        try {
          lock.wait();
        } catch (InterruptedException e) {
          interrupted = true;
        }
      }
      free(model);
      model = 0;
      if (interrupted) Thread.currentThread().interrupt();
    }
  }

  private long take() {
    synchronized (lock) {
      if (model == 0) throw new IllegalStateException("the model is closed");
      users++;
      return model;
    }
  }

  private void release() {
    synchronized (lock) {
      users--;
      lock.notifyAll();
    }
  }

  private static native long open(byte[] path);

  private static native long fromBytes(byte[] bundle);

  private static native Object classify(long model, byte[] text);

  private static native String[] labels(long model);

  private static native void free(long model);
}
