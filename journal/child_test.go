package journal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// Names of what makes this test binary a child that others kill.
const (
	childDir  = "JOURNAL_TEST_CHILD_DIR"
	childMost = "JOURNAL_TEST_CHILD_PUSHES" // by one goroutine; without it, many do for ever
	// childFails is set where its syncs fail.
	childFails = "JOURNAL_TEST_CHILD_FAILS"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir, os.Getenv(childMost))
		return
	}
	os.Exit(m.Run())
}

// child accepts, ends and puts back pushes, with uploads, and prints what is on disk, a line
// each as soon as it is.
func child(dir, most string) {
	j, err := Open(context.Background(), Config{Dir: dir})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	say := func(what string, r *Record) { os.Stdout.WriteString(what + " " + r.ID.String() + "\n") }
	if most != "" {
		var n int
		fmt.Sscan(most, &n)
		childLoop(j, n, 1, say)
		if err := j.Close(); err != nil {
			fmt.Println("error", err)
		}
		return
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { childLoop(j, -1, 5, say) })
	}
	wg.Wait()
}

// childLoop handles some pushes at a time, n times or for ever. All that it does
// with one push it submits at once, in order, so that any part of it may be in
// one transaction; where syncs fail it only accepts, since a push that is not
// there has no end.
//
// Each push has an upload, which is kept, or dropped after the push's end.
func childLoop(j *Journal, n, some int, say func(string, *Record)) {
	failing := os.Getenv(childFails) != ""
	for i := 0; i != n; i++ {
		var wg sync.WaitGroup
		failed := false
		report := func(what string, r *Record) func(error) {
			wg.Add(1)
			return func(err error) {
				if err != nil {
					failed, what = true, "not "+what
				}
				say(what, r)
				wg.Done()
			}
		}
		for k := range 1 + rand.IntN(2*some) {
			r := example(i*100 + k)
			if k%3 == 0 {
				r.IdempotencyKey = fmt.Sprint(rand.Uint64())
			}
			j.Accept(r, report("accepted", r))
			told := func(what string) func() {
				done := report(what, r)
				return func() { done(nil) }
			}
			leave := rand.IntN(4) == 0 || failing
			keep := leave || rand.IntN(3) == 0
			u := exampleUpload(r.ID, 1)
			childUpload(j, u, keep, told)
			if leave {
				continue
			}
			j.End(ended(*r), told("ended"))
			if !keep {
				j.DropUpload(u, told(uploadDropped))
			}
			if rand.IntN(5) == 0 {
				again := *r
				again.RetriedAt = r.AcceptedAt.Add(1)
				j.Requeue(&again, report("requeued", r))
			}
		}
		wg.Wait()
		if failed {
			time.Sleep(retryAfter) // until it is tried again
		}
	}
}

// What a child says of the upload of a push.
const (
	uploadKept    = "upload kept"    // it will not be dropped
	uploadPassing = "upload passing" // it will be, after the end of its push
	uploadDropped = "upload dropped"
)

// childUpload begins an upload with some parts.
func childUpload(j *Journal, u *Upload, keep bool, told func(string) func()) {
	what := uploadPassing
	if keep {
		what = uploadKept
	}
	j.PutUpload(u, told(what))
	for n := range childParts {
		j.PutPart(u, examplePart(n+1), nil)
	}
	u.CompletedAt = u.BegunAt.Add(time.Second)
	j.PutUpload(u, told(what+", complete"))
}

// childParts is how many parts each upload has.
const childParts = 3

// acknowledged is what a child has said of each push, last.
type acknowledged map[push.ID]*heard

type heard struct{ push, upload string }

// heed notes a line of a child.
func (a acknowledged) heed(line string) error {
	i := strings.LastIndexByte(line, ' ')
	what, id := line[:max(i, 0)], line[i+1:]
	parsed, err := push.ParseID(id)
	if err != nil {
		return fmt.Errorf("the child says %q", line)
	}
	if a[parsed] == nil {
		a[parsed] = new(heard)
	}
	if strings.HasPrefix(what, "upload") {
		a[parsed].upload = what
	} else {
		a[parsed].push = what
	}
	return nil
}

// check reports what of that is not in the journal. Changes after the last that
// was said may be in it.
func (a acknowledged) check(j *Journal) error {
	var errs []error
	for id, heard := range a {
		what := heard.push
		r, found, err := j.Get(id)
		errs = append(errs, checkUploads(j, id, heard.upload, r.State.Ended() || !r.RetriedAt.IsZero()))
		switch {
		case what == "": // only its upload was heard of
		case err != nil:
			errs = append(errs, err)
		case what == "not accepted":
			if found {
				errs = append(errs, fmt.Errorf("push %s was refused and is there", id))
			}
		case !found:
			errs = append(errs, fmt.Errorf("push %s was %s and is gone", id, what))
		case what == "ended" && r.State != push.Done && r.RetriedAt.IsZero(),
			what == "requeued" && (r.State != push.Queued || r.RetriedAt.IsZero()):
			errs = append(errs, fmt.Errorf("push %s was %s and is %s", id, what, r.State))
		}
	}
	return errors.Join(errs...)
}

// checkUploads reports what is wrong with the upload of a push, of which the
// child has said this, and which had an end or not.
func checkUploads(j *Journal, id push.ID, said string, hadEnd bool) error {
	uploads, err := j.Uploads(id)
	if err != nil {
		return err
	}
	complete := strings.HasSuffix(said, ", complete")
	if len(uploads) == 0 {
		if strings.HasPrefix(said, uploadKept) || strings.HasPrefix(said, uploadPassing) && !hadEnd {
			return fmt.Errorf("push %s: %s, and it is gone", id, said)
		}
		return nil
	}
	parts, err := j.Parts(&uploads[0])
	switch {
	case err != nil:
		return err
	case said == uploadDropped:
		return fmt.Errorf("push %s: %s, and it is there", id, said)
	case complete && uploads[0].CompletedAt.IsZero():
		return fmt.Errorf("push %s: %s, and of that nothing is there", id, said)
	case !uploads[0].CompletedAt.IsZero() && len(parts) != childParts:
		return fmt.Errorf("push %s: the upload is complete and has %d parts", id, len(parts))
	}
	return nil
}

// TestKill kills a process that writes, again and again, and looks at what it
// leaves.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	said := make(acknowledged)
	rng := rand.New(rand.NewPCG(7, 8))
	for round := range 6 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		most := rng.IntN(3000)
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if n == most {
				_ = cmd.Process.Kill()
			}
			if err := said.heed(lines.Text()); err != nil {
				t.Error(err)
				_ = cmd.Process.Kill()
				break
			}
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait() // it was killed
		j := open(t, Config{Dir: dir})
		if j.MovedAside() != "" {
			t.Fatalf("round %d: the journal cannot be read", round)
		}
		if err := said.check(j); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d pushes", len(said))
}

// TestFailedSync lets syncs of a process fail, as a disk that goes bad does it.
// bbolt takes back what it can; the rest is ours.
func TestFailedSync(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed, which makes system calls fail")
	}
	dir := t.TempDir()
	cmd := exec.Command(strace, "-f", "-qq", "-o", os.DevNull, "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=6+7", os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, childMost+"=60", childFails+"=1")
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("strace does not work here: %v\n%s", err, out)
	}
	said := make(acknowledged)
	for line := range strings.Lines(string(out)) {
		if err := said.heed(strings.TrimSuffix(line, "\n")); err != nil {
			t.Error(err)
		}
	}
	j := open(t, Config{Dir: dir})
	if j.MovedAside() != "" {
		t.Error("the journal cannot be read")
	}
	if err := said.check(j); err != nil {
		t.Error(err)
	}
	if n := strings.Count(string(out), "not accepted"); n == 0 || n == len(said) {
		t.Errorf("%d pushes of %d were refused", n, len(said))
	}
}
