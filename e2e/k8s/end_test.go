package k8s

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestSidecarEnd deletes a pod while 25 files are under way. Its writer takes
// five seconds to end, and pushes one more file then: all are delivered within
// the pod's grace period, which the daemon's end is a part of.
func TestSidecarEnd(t *testing.T) {
	t.Parallel()
	for kind, values := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			const files, size, linger = 25, 400_000, 5 * time.Second
			n := newNamespace(t, restricted)
			s := n.startStore("raw")
			s.setRate(600_000) // 17 s for all of them
			n.installWriter(s, values+fmt.Sprintf(`
args: [write, -dir, /data, -by, post-async, -files, "0", -j, "0", -size, "%d", -linger, %v, -last, "s3://raw/"]
`, size, linger), "s3daemon.sidecar.writerGraceSeconds=10")
			n.untilReady(theWriter)
			writer, daemon, states := n.follow(theWriter, "writer"), n.follow(theWriter, "s3daemon"), n.watch(theWriter)
			n.write(theWriter, "-by", "post-async", "-files", fmt.Sprint(files), "-j", fmt.Sprint(files), "-size", fmt.Sprint(size))
			s.untilUnderWay(files)
			n.kubectl("delete", "pod", theWriter, "--wait=false")
			last := states.untilGone(patience)

			var told, left time.Time // when the writer got SIGTERM, and when it ended
			for _, l := range linesOf[written](writer.all()) {
				switch {
				case l.Event == "sigterm":
					told = l.At
				case l.Event == "end":
					left = l.At
				case !l.OK:
					t.Errorf("the push of %s was not accepted: %s", l.Key, l.Answer)
				}
			}
			var before, after int // pushes that were done before and after the daemon was told to end
			var stopping, stopped time.Time
			for _, l := range linesOf[logged](daemon.all()) {
				switch l.Msg {
				case "stopping":
					stopping = l.Time
				case "stopped":
					stopped = l.Time
				case "push done":
					if l.Time.Before(told) {
						t.Errorf("%s was done before the pod was deleted: the store is too fast for this test", l.Destination)
					}
					if stopping.IsZero() {
						before++
					} else {
						after++
					}
				}
			}
			if told.IsZero() || left.IsZero() || stopping.IsZero() || stopped.IsZero() {
				t.Fatalf("the writer was told to end at %v and ended at %v, the daemon at %v and %v", told, left, stopping, stopped)
			}
			if stopping.Before(left) {
				t.Errorf("the daemon was told to end at %v, before the writer had ended at %v", stopping, left)
			}
			if before+after != files+1 {
				t.Errorf("%d pushes were done, want %d", before+after, files+1)
			}
			for _, c := range []string{"writer", "s3daemon"} {
				if end := last.container(c).State.Terminated; end == nil || end.ExitCode != 0 {
					t.Errorf("%s ended as %+v", c, end)
				}
			}
			s.check(s.objects())
			t.Logf("grace period %d s: SIGTERM to the writer, who ended %.2f s later; to the daemon %.2f s after that, which delivered %d files and ended within %.2f s",
				last.Spec.TerminationGracePeriodSeconds, left.Sub(told).Seconds(), stopping.Sub(left).Seconds(), after, stopped.Sub(stopping).Seconds())
		})
	}
}

// TestSidecarKilled kills a pod (--grace-period=0) that has files under way and
// queued, with its journal on a volume. The pod in its place delivers them all:
// each was accepted once, ends as done once, and is at the store.
func TestSidecarKilled(t *testing.T) {
	t.Parallel()
	const underWay, all, size = 25, 75, 1_000_000
	for name, journal := range map[string]string{
		"in the data's claim":  "{in: volume, volume: data}",
		"in a claim of itself": "{in: claimTemplate}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNamespace(t, restricted)
			s := n.startStore("raw")
			s.setRate(200_000)
			n.installWriter(s, `
data: {in: claimTemplate}
s3daemon:
  journal: `+journal+"\n")
			claims := []string{"data-" + theWriter}
			if strings.Contains(journal, "claimTemplate") {
				claims = append(claims, "s3daemon-journal-"+theWriter)
			}
			n.volumes(claims...)
			first := n.untilReady(theWriter)
			if got := len(n.write(theWriter, "-by", "post-async", "-files", fmt.Sprint(all), "-j", "25", "-size", fmt.Sprint(size))); got != all {
				t.Errorf("%d pushes were accepted, want %d", got, all)
			}
			s.untilUnderWay(underWay)
			n.kubectl("delete", "pod", theWriter, "--grace-period=0", "--force")
			killed := time.Now()
			s.setRate(0)
			second := n.untilPod(theWriter, "is another one, and ready", func(p pod) bool {
				return p.Metadata.UID != first.Metadata.UID && p.ready()
			})
			objects := s.untilObjects(patience, all)
			twice := 0
			for _, o := range objects {
				if o.Writes > 1 { // its first request was at the store when the daemon was killed
					twice++
				}
			}
			for id, state := range n.pushes(second.Metadata.Name) {
				if state != "done" {
					t.Errorf("the push %s is %s", id, state)
				}
			}
			if got := len(n.pushes(second.Metadata.Name)); got != all {
				t.Errorf("the daemon knows %d pushes, want %d", got, all)
			}
			t.Logf("all %d delivered %.1f s after the pod was killed, %d of them by a second request", all, time.Since(killed).Seconds(), twice)
		})
	}
}

// pushes asks the daemon beside a writer for its pushes, and returns the state
// of each by its id. The list is one page of it.
func (n *namespace) pushes(pod string) map[string]string {
	n.t.Helper()
	var answer struct {
		Body string `json:"body"`
	}
	var list struct {
		Pushes []struct {
			ID    string `json:"id"`
			State string `json:"state"`
		} `json:"pushes"`
	}
	err := json.Unmarshal([]byte(n.exec(pod, "writer", "/tool", "ask", "GET", "/pushes?limit=1000")), &answer)
	if err == nil {
		err = json.Unmarshal([]byte(answer.Body), &list)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	states := make(map[string]string)
	for _, p := range list.Pushes {
		states[p.ID] = p.State
	}
	return states
}
