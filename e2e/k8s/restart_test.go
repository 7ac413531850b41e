package k8s

import (
	"fmt"
	"testing"
	"time"
)

// TestSidecarRestart kills the daemon alone, with kill -9, while it has files
// under way and queued: Kubernetes starts it again in the same pod, whose
// emptyDir still has the journal. Neither the writer nor anything else notices.
func TestSidecarRestart(t *testing.T) {
	t.Parallel()
	const underWay, all, size = 25, 75, 1_000_000
	n := newNamespace(t, restricted)
	s := n.startStore("raw")
	s.setRate(200_000)
	// Who kills it is the same user, as far as the kernel is concerned.
	n.installWriter(s, "podSecurityContext: {runAsUser: 65532, runAsGroup: 65532}")
	n.kubectl("patch", "statefulset", "writer", "--patch", `{"spec": {"template": {"spec": {"shareProcessNamespace": true}}}}`)
	n.kubectl("rollout", "status", "statefulset/writer", "--timeout=120s")
	n.untilReady(theWriter)
	n.write(theWriter, "-by", "post-async", "-files", fmt.Sprint(all), "-j", "25", "-size", fmt.Sprint(size))
	s.untilUnderWay(underWay)
	n.exec(theWriter, "writer", "/tool", "kill", "s3daemon")
	killed := time.Now()
	s.setRate(0)
	// Who asks while it is away, goes on asking: send waits for it.
	if got := n.write(theWriter, "-by", "send", "-name", "meanwhile", "-size", fmt.Sprint(size)); len(got) == 1 {
		t.Logf("a push that came meanwhile took %.1f s", got[0].Seconds)
	}
	s.untilObjects(patience, all+1)
	p := n.untilPod(theWriter, "is ready with another daemon", func(p pod) bool {
		return p.ready() && p.container("s3daemon").RestartCount == 1
	})
	if c := p.container("writer"); c.RestartCount > 0 {
		t.Errorf("the writer was restarted too: %+v", c)
	}
	pushes := n.pushes(theWriter)
	for id, state := range pushes {
		if state != "done" {
			t.Errorf("the push %s is %s", id, state)
		}
	}
	if len(pushes) != all+1 {
		t.Errorf("the daemon knows %d pushes, want %d", len(pushes), all+1)
	}
	t.Logf("all were delivered %.1f s after the daemon was killed", time.Since(killed).Seconds())
}
