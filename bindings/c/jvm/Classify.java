import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import rs.kinglet.Kinglet;

/** Classifies texts, and shows what happens with bytes that are no model: {@code java Classify MODEL TEXT...} */
public final class Classify {
  private static void refused(String what, Runnable call) {
    try {
      call.run();
    } catch (RuntimeException e) {
      System.err.println(what + ": " + e.getMessage());
      return;
    }
    throw new AssertionError(what + " is no error");
  }

  public static void main(String[] args) throws Exception {
    byte[] bundle = Files.readAllBytes(Path.of(args[0]));
    try (Kinglet mapped = new Kinglet(args[0]);
        Kinglet copied = new Kinglet(bundle)) {
      for (String text : Arrays.asList(args).subList(1, args.length)) {
        Kinglet.Answer answer = mapped.classify(text), again = copied.classify(text);
        if (!answer.label.equals(again.label) || answer.probability != again.probability) throw new AssertionError(text);
        System.out.println(answer.label + "\t" + answer.probability + (answer.unsure ? "\tunsure" : ""));
      }
      System.err.println(mapped.labels().length + " labels");
    }
    bundle[bundle.length / 2] ^= 1;
    refused("damaged", () -> new Kinglet(bundle));
    refused("empty", () -> new Kinglet(new byte[0]));
    refused("null", () -> new Kinglet((byte[]) null));
    refused("missing", () -> new Kinglet("there/is/no/such.kinglet"));
    refused("closed", () -> {
      Kinglet closed = new Kinglet(args[0]);
      closed.close();
      closed.close();
      closed.classify("a");
    });
  }
}
