package k8s

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// retryScript makes files and has them pushed without waiting, unless that was
// done by a pod before it. Then it does as it is told: it fails, or it waits at
// the barrier, by the label that is in README.
const retryScript = `
cd /data
label=$JOB${JOB_COMPLETION_INDEX:+-$JOB_COMPLETION_INDEX}
if ! [ -e pushed ]; then
  for i in $(seq %d); do head -c %d /dev/zero > $i.file; done
  /opt/s3daemon/send -async -label "$label" *.file s3://raw/
  touch pushed
fi
until [ -e "told-$HOSTNAME" ]; do sleep 0.2; done
case $(cat "told-$HOSTNAME") in fail) exit 1;; esac
exec /opt/s3daemon/send -wait "$label"
`

// TestJobRetry has the first pod of a Job fail while its files are on their way:
// when the Job is complete by its second pod, all of them are at the store. On a
// claim that pod finds them in the journal, and the barrier is for what the first
// one pushed; else it pushes all of them again.
func TestJobRetry(t *testing.T) {
	t.Parallel()
	for name, values := range map[string]string{
		"journal and data on a claim": `
data: {in: claim, claim: data}
s3daemon: {journal: {in: volume, volume: data}, drain: {timeoutSeconds: 2}}`,
		"journal and data end with the pod": `
s3daemon: {drain: {timeoutSeconds: 2}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const files, size = 40, 200_000
			n := newNamespace(t, restricted)
			s := n.startStore("raw")
			s.setRate(400_000) // 20 s for all of them
			if strings.Contains(values, "claim: data") {
				n.apply("{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}")
				n.volumes("data")
			}
			n.installWriter(s, fmt.Sprintf("kind: Job\nimage: %s\ncommand: [sh, -euc]\nargs: [%q]\n%s",
				busyboxImage(t), fmt.Sprintf(retryScript, files, size), values))

			first := n.untilPushed("")
			n.tell(first, "fail")
			n.untilPod(first, "has failed", func(p pod) bool { return p.Status.Phase == "Failed" })
			second := n.untilPushed(first)
			if there := len(s.objects()); there >= files {
				t.Errorf("all %d files are there before the barrier: the store is too fast for this test", there)
			}
			n.tell(second, "wait")
			n.kubectl("wait", "--for=condition=complete", "job/writer", "--timeout=120s")

			objects, sum := s.objects(), sha256.Sum256(make([]byte, size))
			if len(objects) != files {
				t.Errorf("the Job is complete, and %d files are at the store, want %d", len(objects), files)
			}
			for path, o := range objects {
				if o.SHA256 != hex.EncodeToString(sum[:]) {
					t.Errorf("%s is not the file: it has %d bytes", path, o.Size)
				}
			}
		})
	}
}

// untilPushed waits for a pod of the Job, not that one, whose files were pushed,
// and returns its name.
func (n *namespace) untilPushed(not string) (name string) {
	n.t.Helper()
	n.until(patience, "a pod's files are pushed", func() error {
		for _, p := range n.pods("app.kubernetes.io/instance=writer") {
			if name = p.Metadata.Name; name == not {
				continue
			}
			_, err := n.try("exec", name, "--container", "writer", "--", "test", "-e", "/data/pushed")
			return err
		}
		return errNotYet
	})
	return name
}

// tell has the writer of a pod of the Job go on. It may have ended before kubectl
// hears that it was told.
func (n *namespace) tell(pod, what string) {
	n.t.Helper()
	n.try("exec", pod, "--container", "writer", "--", "sh", "-c", "cd /data && echo "+what+" > told && mv told told-"+pod)
}
