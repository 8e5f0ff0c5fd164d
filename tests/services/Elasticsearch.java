import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.PluginsLoader;

/** Elasticsearch HOME DATA HTTP_PORT TRANSPORT_PORT: one node of the server, out of its jars. */
public class Elasticsearch {
    public static void main(String[] arguments) throws Exception {
        Path home = Path.of(arguments[0]);
        Path run = Path.of(arguments[1]);
        System.setProperty("es.path.home", home.toString());
        Map<String, String> settings = new HashMap<>();
        settings.put("path.home", home.toString());
        settings.put("path.data", run.resolve("data").toString());
        settings.put("path.logs", run.resolve("logs").toString());
        settings.put("node.name", "node");
        settings.put("discovery.type", "single-node");
        settings.put("http.host", "127.0.0.1");
        settings.put("http.port", arguments[2]);
        settings.put("transport.host", "127.0.0.1");
        settings.put("transport.port", arguments[3]);
        settings.put("cluster.routing.allocation.disk.threshold_enabled", "false");
        LogConfigurator.registerErrorListener();
        LogConfigurator.configureESLogging();
        LogConfigurator.setNodeName("node");
        Path configuration = Files.createDirectories(run.resolve("config"));
        Environment environment =
            InternalSettingsPreparer.prepareEnvironment(Settings.EMPTY, settings, configuration, () -> "node");
        LogConfigurator.configureWithoutConfig(environment.settings());
        try {
            PluginsLoader plugins = PluginsLoader.createPluginsLoader(
                PluginsLoader.loadModulesBundles(home.resolve("modules"), false),
                PluginsLoader.loadPluginsBundles(home.resolve("plugins"), false),
                Map.of(), false);
            new Node(environment, plugins).start();
            Thread.currentThread().join();
        } catch (Throwable error) {
            error.printStackTrace();
            System.exit(1);
        }
    }
}
