import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.memory.MemoryBackend;
import de.bwaldvogel.mongo.bson.Document;
import io.netty.channel.Channel;
import io.netty.channel.embedded.EmbeddedChannel;
import java.time.Instant;
import java.util.List;

/**
 * Mongo PORT SECONDS: an in-memory server of the MongoDB protocol that says it is version 5.0, and
 * every so many seconds deletes what the TTL indexes say (mongod: every 60).
 */
public class Mongo {
    private static final Channel CHANNEL = new EmbeddedChannel();
    private final MemoryBackend backend = new MemoryBackend();

    /** The newest version that the library knows is refused by today's clients. */
    private static final class Version implements MongoVersion {
        @Override
        public List<Integer> getVersionArray() {
            return List.of(5, 0, 0, 0);
        }

        @Override
        public int getWireVersion() {
            return 13;
        }
    }

    private Document command(String database, Document command) {
        command.put("$db", database);
        return backend.handleCommand(CHANNEL, database, command.keySet().iterator().next(), command);
    }

    @SuppressWarnings("unchecked")
    private static List<Document> documents(Document answer) {
        return (List<Document>) ((Document) answer.get("cursor")).get("firstBatch");
    }

    private void expire(String database, String collection, Document index) {
        Document key = (Document) index.get("key");
        if (!(index.get("expireAfterSeconds") instanceof Number after) || key.size() != 1) {
            return;
        }
        Instant before = Instant.now().minusMillis((long) (after.doubleValue() * 1000));
        Document older = new Document(key.keySet().iterator().next(), new Document("$lt", before));
        Document delete = new Document("q", older).append("limit", 0);
        command(database, new Document("delete", collection).append("deletes", List.of(delete))
                .append("ordered", true));
    }

    private void expireAll() {
        Document list = command("admin", new Document("listDatabases", 1));
        for (Object found : (Iterable<?>) list.get("databases")) {
            String database = (String) ((Document) found).get("name");
            if (database.equals("admin") || database.equals("local")) {
                continue;
            }
            for (Document row : documents(command(database, new Document("listCollections", 1)))) {
                String collection = (String) row.get("name");
                if (collection.startsWith("system.")) {
                    continue;
                }
                Document indexes = command(database, new Document("listIndexes", collection));
                for (Document index : documents(indexes)) {
                    expire(database, collection, index);
                }
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        Mongo mongo = new Mongo();
        mongo.backend.version(new Version());
        new MongoServer(mongo.backend).bind("127.0.0.1", Integer.parseInt(arguments[0]));
        while (true) {
            Thread.sleep((long) (Double.parseDouble(arguments[1]) * 1000));
            try {
                mongo.expireAll();
            } catch (RuntimeException error) {
                error.printStackTrace();
            }
        }
    }
}
