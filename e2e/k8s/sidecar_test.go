package k8s

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// kinds are the ways in which a sidecar can be part of a pod: as an init
// container that stays, or, as before Kubernetes 1.29, as an ordinary one.
var kinds = map[string]string{
	"native":   "s3daemon: {sidecar: {native: true}}",
	"ordinary": "s3daemon: {sidecar: {native: false}}",
}

// TestSidecarFirst starts twenty writers at once, the first thing each of which
// does is a push, asked for once: its sidecar is ready by then.
func TestSidecarFirst(t *testing.T) {
	t.Parallel()
	const writers = 20
	n := newNamespace(t, restricted)
	s := n.startStore("raw")
	n.installWriter(s, fmt.Sprintf(`
kind: Deployment # which starts all of them at once
replicas: %d
args: [write, -dir, /data, -files, "1", -size, "100000", -stay, "s3://raw/"]
`, writers))
	n.kubectl("rollout", "status", "deployment/writer", "--timeout=300s")
	pods := n.pods("app.kubernetes.io/instance=writer")
	if len(pods) != writers {
		t.Errorf("there are %d writers, want %d", len(pods), writers)
	}
	var waited, pushed []time.Duration
	for _, p := range pods {
		name := p.Metadata.Name
		said := untilSays(n.follow(name, "writer"), "what became of its file", func(l written) bool { return l.File != "" })
		if !said.OK {
			t.Errorf("%s: its first push failed: %s", name, said.Answer)
		}
		ready := untilSays(n.follow(name, "s3daemon"), "that it is ready", func(l logged) bool { return l.Msg == "ready" })
		daemon, writer := p.container("s3daemon"), p.container("writer")
		if daemon.RestartCount+writer.RestartCount > 0 {
			t.Errorf("%s: the daemon was restarted %d times, the writer %d", name, daemon.RestartCount, writer.RestartCount)
		}
		if daemon.State.Running == nil || writer.State.Running == nil {
			t.Fatalf("%s: not both containers run", name)
		}
		if began := writer.State.Running.StartedAt; began.Before(daemon.State.Running.StartedAt) {
			t.Errorf("%s: the writer began at %v, the daemon at %v", name, began, daemon.State.Running.StartedAt)
		}
		if !said.Started.After(ready.Time) {
			t.Errorf("%s: the first push was at %v, the daemon ready at %v", name, said.Started, ready.Time)
		}
		waited = append(waited, said.Started.Sub(ready.Time))
		pushed = append(pushed, time.Duration(said.Seconds*float64(time.Second)))
	}
	s.untilObjects(patience, writers)
	t.Logf("the first push came %s after the daemon was ready, and took %s", spread(waited), spread(pushed))
}

// spread writes the least, the median and the greatest of some durations.
func spread(all []time.Duration) string {
	slices.Sort(all)
	if len(all) == 0 {
		return "never"
	}
	round := func(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
	return fmt.Sprintf("%v to %v (median %v)", round(all[0]), round(all[len(all)-1]), round(all[len(all)/2]))
}

// TestSidecarWays pushes from the writer's container in all ways that there are,
// through loopback and the port of the old protocol.
func TestSidecarWays(t *testing.T) {
	t.Parallel()
	for kind, values := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			n := newNamespace(t, restricted)
			s := n.startStore("raw")
			n.installWriter(s, values, "s3daemon.sidecar.legacy.enabled=true")
			n.untilReady(theWriter)
			ways := []string{"post", "post-async", "send", "send-flags", "line"}
			for _, by := range ways {
				if pushed := n.write(theWriter, "-by", by, "-name", by, "-files", "3", "-j", "3", "-size", "200000"); len(pushed) != 3 {
					t.Errorf("%s: %d pushes, want 3", by, len(pushed))
				}
			}
			s.untilObjects(patience, 3*len(ways))
			p, err := n.pod(theWriter)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []string{"s3daemon", "s3daemon-legacy", "writer"} {
				if got := p.container(c); got.State.Running == nil || got.RestartCount > 0 {
					t.Errorf("%s is %+v", c, got)
				}
			}
		})
	}
}
