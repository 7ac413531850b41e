package k8s

import (
	"strings"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/e2e/k8s/content"
)

// TestNodeUpgrade replaces the daemon of a node, by an upgrade and by a rollback,
// while four writers of other pods push all the time through send: none of their
// pushes may fail, and all that they were told was delivered is there.
func TestNodeUpgrade(t *testing.T) {
	t.Parallel()
	d := startNode(t, nil)
	n := newNamespace(t, privileged)
	const retry = `- {name: S3DAEMON_RETRY_FOR, value: "2m"}`
	small := []string{"-files", "0", "-size", "30000", "-j", "2", "-every", "250ms"}
	large := []string{"-files", "0", "-size", "4000000", "-j", "2", "-every", "500ms"}
	writers := map[string]*followed{
		"flags":       d.writer(n, "flags", []int{socketGroup}, "", append(small, "-by", "send-flags")...),
		"plain":       d.writer(n, "plain", []int{socketGroup}, retry, append(small, "-by", "send")...),
		"flags-large": d.writer(n, "flags-large", []int{socketGroup}, "", append(large, "-by", "send-flags")...),
		"plain-large": d.writer(n, "plain-large", []int{socketGroup}, retry, append(large, "-by", "send")...),
	}
	// So slow that the large files are under way for seconds, whenever it is.
	d.s.setRate(3 << 20)
	for name, w := range writers {
		untilSays(w, name+" has pushed a file", func(l written) bool { return l.OK })
	}

	before := d.daemon()
	d.upgrade(map[string]any{"settings": map[string]any{"S3DAEMON_LOG_LEVEL": "debug"}})
	between := d.daemon()
	if before.Metadata.UID == between.Metadata.UID {
		t.Error("the upgrade has not replaced the daemon")
	}
	untilMore(writers)
	if _, err := d.n.helm("", "rollback", "node", "1"); err != nil {
		t.Fatal(err)
	}
	d.untilRolledOut()
	if after := d.daemon(); after.Metadata.UID == between.Metadata.UID {
		t.Error("the rollback has not replaced the daemon")
	}
	untilMore(writers)

	for name := range writers {
		n.kubectl("delete", "pod", name, "--wait=false")
	}
	for name, w := range writers {
		delivered(t, d.s, name, w)
	}
}

// TestSidecarUpgrade rolls a StatefulSet of writers that push all the time, by an
// upgrade and by a rollback: the writer and its sidecar are replaced together,
// and what the writer had begun is delivered before.
func TestSidecarUpgrade(t *testing.T) {
	t.Parallel()
	for kind, values := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			n := newNamespace(t, restricted)
			s := n.startStore("raw")
			s.setRate(3 << 20)
			values += `
args: [write, -dir, /data, -send, /opt/s3daemon/send, -by, send-flags, -files, "0", -size, "1000000", -j, "4", -every, 300ms, -linger, 1s, -last, "s3://raw/"]
`
			install := func(level string) {
				n.installWriter(s, values, "s3daemon.sidecar.writerGraceSeconds=10", "s3daemon.settings.S3DAEMON_LOG_LEVEL="+level)
			}
			rolled := func() *followed {
				n.kubectl("rollout", "status", "statefulset/writer", "--timeout=180s")
				w := n.follow(theWriter, "writer")
				untilSays(w, "its writer has pushed files", func(l written) bool { return l.OK && strings.HasSuffix(l.Key, "8") })
				return w
			}
			install("info")
			all := map[string]*followed{"first": rolled()}
			install("debug")
			all["upgraded"] = rolled()
			if _, err := n.helm("", "rollback", "writer", "1"); err != nil {
				t.Fatal(err)
			}
			all["rolled back"] = rolled()
			n.kubectl("delete", "statefulset", "writer", "--wait=false")
			for name, w := range all {
				delivered(t, s, name, w)
			}
		})
	}
}

// untilMore waits until each writer has had a file pushed that it began later
// than now.
func untilMore(writers map[string]*followed) {
	now := time.Now()
	for name, w := range writers {
		untilSays(w, name+" pushes again", func(l written) bool { return l.OK && l.Started.After(now) })
	}
}

// delivered waits for the writer's end, and fails the test where a push of its
// failed, or an object is not at the store that it was told was delivered.
func delivered(t *testing.T, s *store, name string, w *followed) {
	t.Helper()
	var pushes, files, failed int
	var longest written
	lines := linesOf[written](w.all())
	objects := make(map[string]object)
	for path, o := range s.objects() {
		objects[path[strings.LastIndex(path, "/")+1:]] = o
	}
	for _, l := range lines {
		if l.Event != "" {
			continue
		}
		pushes++
		switch o, there := objects[l.Key]; {
		case !l.OK && failed == 3: // the others are counted
		case !l.OK:
			failed++
			t.Errorf("%s: the push of %s failed after %.1f s: %s", name, l.Key, l.Seconds, l.Answer)
		case !there:
			t.Errorf("%s: %s is not at the store, though its push was done", name, l.Key)
		case o.SHA256 != content.Digest(l.Key, l.Size):
			t.Errorf("%s: %s at the store has other bytes", name, l.Key)
		default:
			files++
		}
		if l.Seconds > longest.Seconds {
			longest = l
		}
	}
	if n := len(lines); n == 0 || lines[n-1].Event != "end" {
		t.Errorf("%s did not end by itself: %s", name, tail(w.text(), 500))
	}
	t.Logf("%s: %d of %d files are there, the longest push took %.1f s", name, files, pushes, longest.Seconds)
}
