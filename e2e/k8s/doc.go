// Package k8s tests s3daemon's image and chart on a real cluster: sidecars and
// node daemons in pods, the API server's own judgement of what the chart
// renders, and a store in a pod beside them.
//
// Nothing here runs unless S3DAEMON_E2E_KUBE=1: a KUBECONFIG alone means no
// leave to make namespaces. kubectl and helm are those of the PATH, and the
// cluster is kubectl's current one, of any maker: no node, address or storage
// class is taken for granted. The tests make the images, and S3DAEMON_E2E_LOAD
// brings them to the nodes; see images_test.go. Each test has namespaces of its
// own, which are removed at its end, with all that was made beside them.
//
// What a test has to work with, each in the file of that name:
//
//	n := newNamespace(t, restricted)            // namespace_test.go: the Pod Security Standard is enforced
//	n.apply(yaml); n.kubectl("get", "pods")     // kubectl_test.go: what the API server warns of fails the test
//	n.install("name", chart(t), values)         // helm_test.go
//	s := n.startStore("raw")                    // store_test.go: a pod; s.objects(), s.setRate(n), s.setCredentials(pairs...)
//	n.installWriter(s, values)                  // writer_test.go: a pod with the sidecar; n.write(theWriter, args...) makes and pushes files there
//	d := startNode(t, values)                   // node_test.go: one daemon a node; d.writer(n, ...) in another namespace
//	w := n.watch("pod-0")                       // watch_test.go: all states of a pod, those at its end too
//	f := n.follow("pod-0", "writer")            // logs_test.go: what a container says, until its end
//	n.volumes("data-pod-0")                     // volume_test.go: a volume for that claim, where no storage class makes one
package k8s
