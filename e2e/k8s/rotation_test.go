package k8s

import (
	"fmt"
	"testing"
	"time"
)

// TestRotation changes credentials in the Secret that they are mounted from while
// callers push all the time. Kubernetes brings them when it likes, a minute and a
// half later or sooner; nobody restarts anything.
func TestRotation(t *testing.T) {
	t.Parallel()
	d := startNode(t, nil)
	n := newNamespace(t, privileged)
	first := d.daemon()
	waits := d.writer(n, "waits", []int{socketGroup}, "", "-files", "0", "-size", "20000", "-j", "2", "-every", "200ms")
	async := d.writer(n, "async", []int{socketGroup}, "", "-files", "0", "-size", "20000", "-j", "2", "-every", "200ms", "-by", "post-async")
	all := map[string]*followed{"waits": waits, "async": async}
	for name, w := range all {
		untilSays(w, name+" has pushed a file", func(l written) bool { return l.OK })
	}

	t.Log("in the order that the README asks for: the store takes new ones beside the old, then the Secret has them, then the old end")
	const id, secret = "E2E-SECOND", "e2e-second-secret"
	d.s.setCredentials(d.s.id+":"+d.s.secret, id+":"+secret)
	began := time.Now()
	d.n.credentials(storeSecret, id, secret)
	d.untilSignedBy(id, d.s.id)
	t.Logf("the new ones are in use %v after the Secret had them", time.Since(began).Round(time.Second))
	d.s.setCredentials(id + ":" + secret)
	untilMore(all)
	if c := d.s.counts(); c.Refused != 0 {
		t.Errorf("the store refused %d requests", c.Refused)
	}
	n.kubectl("delete", "pod", "waits", "--wait=false")
	delivered(t, d.s, "waits", waits)

	t.Log("without warning: the store takes nothing else from now on, and the Secret has them some time later")
	const id3, secret3 = "E2E-THIRD", "e2e-third-secret"
	d.s.setCredentials(id3 + ":" + secret3)
	d.n.until(patience, "the store refuses the old ones", func() error {
		if d.s.counts().Refused == 0 {
			return errNotYet
		}
		return nil
	})
	untilSays(async, "a push is accepted meanwhile", func(l written) bool { return l.OK && time.Since(l.Started) < 2*time.Second })
	began = time.Now()
	d.n.credentials(storeSecret, id3, secret3)
	d.untilSignedBy(id3, id)
	t.Logf("the new ones are in use %v after the Secret had them", time.Since(began).Round(time.Second))
	n.kubectl("delete", "pod", "async", "--wait=false")
	async.all()
	d.n.until(patience, "nothing waits any more", func() error {
		objects, err := d.s.tryObjects()
		if err != nil {
			return err
		}
		for _, l := range linesOf[written](async.text()) {
			if _, there := objects["raw/"+n.name+"/"+l.Key]; l.Key != "" && !there {
				return fmt.Errorf("%s is not at the store", l.Key)
			}
		}
		return nil
	})
	delivered(t, d.s, "async", async)

	last := d.daemon()
	if c := last.container("s3daemon"); last.Metadata.UID != first.Metadata.UID || c.RestartCount != 0 {
		t.Errorf("the daemon was restarted %d times, or is another: %s, was %s", c.RestartCount, last.Metadata.Name, first.Metadata.Name)
	}
}

// untilSignedBy waits until the store has taken requests that the new key signed,
// and for some seconds none of the old one.
func (d *node) untilSignedBy(id, old string) {
	d.n.t.Helper()
	var since time.Time
	var before int
	d.n.until(4*time.Minute, "requests are signed by "+id, func() error {
		taken := d.s.counts().Taken
		if taken[id] == 0 || taken[old] != before {
			before, since = taken[old], time.Now()
		}
		if took := time.Since(since); took < 3*time.Second {
			return fmt.Errorf("%v were taken", taken)
		}
		return nil
	})
}
