package k8s

import (
	"fmt"
	"testing"
)

// TestHarness tests what the others stand on: the store is reached and tells
// what it has, claims get volumes that the user 65532 may write to, and the
// restricted standard is enforced.
func TestHarness(t *testing.T) {
	t.Parallel()
	n := newNamespace(t, restricted)
	s := n.startStore("raw")
	if all := s.objects(); len(all) != 0 {
		t.Errorf("a new store has %v", all)
	}
	n.volumes("data")
	n.apply(fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  restartPolicy: Never
  containers:
  - name: writer
    image: %s
    command: [sh, -c, "echo written > /data/file && cat /data/file"]
    securityContext: %s
    volumeMounts: [{name: data, mountPath: /data}]
  securityContext: {fsGroup: 65532}
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
`, busyboxImage(t), safe))
	if p := n.untilPod("writer", "has ended", pod.ended); p.Status.Phase != "Succeeded" {
		t.Errorf("the pod ended as %s", p.Status.Phase)
	}
	if said := n.kubectl("logs", "writer"); said != "written\n" {
		t.Errorf("it said %q", said)
	}
	unsafe := "{apiVersion: v1, kind: Pod, metadata: {name: unsafe}, spec: {containers: [{name: x, image: x}]}}"
	if err := n.tryApply(unsafe, "--dry-run=server"); err == nil {
		t.Error("a pod that may become root was taken")
	}
}
