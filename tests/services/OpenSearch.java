import org.codelibs.opensearch.runner.OpenSearchRunner;

/** OpenSearch FOLDER HTTP_PORT TRANSPORT_PORT: one node. */
public class OpenSearch {
    public static void main(String[] arguments) throws Exception {
        OpenSearchRunner runner = new OpenSearchRunner();
        try {
            runner.onBuild((number, settings) -> {
                settings.put("network.host", "127.0.0.1");
                settings.put("http.port", arguments[1]);
                settings.put("transport.port", arguments[2]);
                settings.put("discovery.type", "single-node");
                settings.put("cluster.routing.allocation.disk.threshold_enabled", false);
            });
            runner.build(OpenSearchRunner.newConfigs()
                .basePath(arguments[0]).numOfNode(1).clusterName("opensearch"));
        } catch (Throwable error) {
            error.printStackTrace();
            System.exit(1);
        }
        Thread.currentThread().join();
    }
}
