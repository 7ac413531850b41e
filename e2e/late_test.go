package e2e

import (
	"net/url"
	"strings"
	"testing"
)

// A push that takes longer than it may is counted as late, and its line says so. It is done
// all the same.
func TestLatePush(t *testing.T) {
	p := storeProxy(t)
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_DEADLINE=0.2")
	p.hold()
	defer p.release()
	id := d.pushAsync(t, file, "s3://"+bucket+"/late").ID
	waitFor(t, "the push to be late", func() bool { return d.pushOf(t, id).Seconds > 0.2 })
	p.release()
	d.doneOf(t, id)
	d.logged(t, 1, "push done")
	if n := d.metric("s3daemon_pushes_late_total"); n != 1 || d.metric("s3daemon_deadline_seconds") != 0.2 {
		t.Errorf("%v pushes were late", n)
	}
	if n := d.metric(`s3daemon_push_duration_seconds_bucket{le="0.2"}`); n != 0 {
		t.Errorf("%v pushes took no longer than they may", n)
	}
	if line := logLines(d.out.bytes(), "push done")[0]; line["late"] != true {
		t.Errorf("the line does not say so: %v", line)
	}
	d.kill()

	again := d.restart(t, "S3DAEMON_DEADLINE=1h")
	again.push(t, file, "s3://"+bucket+"/in-time").done(t)
	again.logged(t, 1, "push done")
	if n := again.metric("s3daemon_pushes_late_total"); n != 0 {
		t.Errorf("%v pushes were late that had an hour", n)
	}
	if line := logLines(again.out.bytes(), "push done")[0]; line["late"] != nil {
		t.Errorf("the line of one in time: %v", line)
	}
}

// Who remembers a part of a name finds the push, whether it is done or waits.
func TestFindByText(t *testing.T) {
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket := newBucket(t)
	done := d.push(t, makeFile(t, "Bias_R22 s11.fits", 1000), "s3://"+bucket+"/calib/one").done(t).ID
	p.hold()
	defer p.release()
	waits := d.pushAs(t, async.labelled("Night12"), makeFile(t, "flat.fits", 1000), "s3://"+bucket+"/calib/two").accepted(t).ID
	for text, want := range map[string]string{
		"bias_r22 S11":          done,
		"calib/TWO":             waits,
		"night1":                waits,
		"s3://" + bucket + "/c": waits + " " + done,
		done:                    done,
		"nowhere":               "",
	} {
		var found []string
		for _, r := range d.pageOf(t, "text="+url.QueryEscape(text)).Pushes {
			found = append(found, r.ID)
		}
		if got := strings.Join(found, " "); got != want {
			t.Errorf("%q finds %q, want %q", text, got, want)
		}
	}
	if n := len(d.pageOf(t, "text=calib&state=done&limit=1").Pushes); n != 1 {
		t.Errorf("%d pushes are done and have it", n)
	}
	d.get(t, "/pushes?text=").refused(t, 400, "invalid_parameter")
	p.release()
	d.doneOf(t, waits)
}
