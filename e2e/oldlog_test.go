package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// whatUsersRead is the expression by which the users of the Python s3daemon read its
// log, as they have written it.
var whatUsersRead = regexp.MustCompile(`INFO (.+) __main__ - ([0-9]+.[0-9]+) ([0-9]+.[0-9]+)`)

// The log is what programs for that of the Python s3daemon read, also after it was
// rotated.
func TestOldLog(t *testing.T) {
	const pushes = 10
	log, socket := filepath.Join(t.TempDir(), "log"), filepath.Join(t.TempDir(), "socket")
	d := launch(t, environment(t, "S3DAEMON_LISTEN=unix:"+socket, "S3DAEMON_LOG="+log, "S3DAEMON_LOG_FORMAT=legacy", "TZ=UTC"))
	d.addrs = []string{"unix:" + socket}
	d.client = clientOf(d.addrs[0])
	waitFor(t, "it to listen", func() bool {
		conn, err := dialDaemon(d.addrs[0])
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	began := time.Now()
	for i := range pushes {
		if i == pushes/2 {
			if err := os.Rename(log, log+".1"); err != nil {
				t.Fatal(err)
			}
			d.signal(syscall.SIGHUP)
			waitFor(t, "the new file", func() bool { _, err := os.Stat(log); return !errors.Is(err, os.ErrNotExist) })
			if a := d.push(t, file, "s3://no-such-bucket/key"); a.status/100 == 2 {
				t.Fatalf("a push to no bucket: %d", a.status)
			}
		}
		d.push(t, file, fmt.Sprintf("s3://%s/in/%d.fits", bucket, i)).done(t)
	}
	d.signal(syscall.SIGTERM)
	if code := d.wait(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	var delivered, failed, others []string
	for n, name := range []string{log + ".1", log} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(text))
		for first := true; lines.Scan(); first = false {
			line := lines.Text()
			found := whatUsersRead.FindStringSubmatch(line)
			switch {
			case n == 0 && first:
				if !regexp.MustCompile(`^INFO \d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} __main__ - Starting server$`).MatchString(line) {
					t.Errorf("the first line is %q", line)
				}
			case found != nil:
				at, err := time.ParseInLocation("2006-01-02 15:04:05,000", found[1], time.UTC)
				start, err2 := strconv.ParseFloat(found[2], 64)
				seconds, err3 := strconv.ParseFloat(found[3], 64)
				if err := errors.Join(err, err2, err3); err != nil {
					t.Errorf("%q: %v", line, err)
				}
				ended := time.UnixMicro(int64((start + seconds) * 1e6))
				if start < float64(began.Add(-time.Second).UnixMicro())/1e6 || ended.After(at.Add(2*time.Second)) || ended.Before(at.Add(-patience)) {
					t.Errorf("%q: from %f on, at %v", line, start, at)
				}
				_, key, _ := strings.Cut(line, " sec - ")
				delivered = append(delivered, key)
			case strings.HasPrefix(line, "ERROR ") && strings.Contains(line, " sec - key - store_refused: "):
				failed = append(failed, line)
			default:
				others = append(others, line)
			}
		}
		if want := pushes / 2 * (n + 1); len(delivered) != want {
			t.Errorf("up to %s, %d pushes are in the log, want %d", filepath.Base(name), len(delivered), want)
		}
	}
	for i, key := range delivered {
		if key != fmt.Sprintf("in/%d.fits", i) {
			t.Errorf("the line of push %d has the key %q", i, key)
		}
	}
	if len(failed) != 1 {
		t.Errorf("there are %d lines of the push that failed", len(failed))
	}
	for _, line := range others {
		if !strings.HasPrefix(line, "WARNING ") {
			t.Errorf("the log has %q, which its readers do not know", line)
		}
	}
}
