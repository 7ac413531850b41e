package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// tryCreate pushes a file that may not overwrite.
func (d *daemon) tryCreate(file, destination string) (answer, error) {
	form := url.Values{"file": {file}, "destination": {destination}, "overwrite": {"false"}}.Encode()
	return d.send(d.client, d.request(context.Background(), "POST", "/push", "application/x-www-form-urlencoded", form))
}

// creator is somebody who would create an object from a file.
type creator struct {
	daemon *daemon
	file   string
}

// contest has the creators create one object at once, and checks that exactly
// one is done, that its bytes are there, and that the others are told so; those
// with the winner's file are done as well.
func contest(t *testing.T, s *realStore, bucket, key string, creators ...creator) (winner receipt) {
	t.Helper()
	answers, errs := make([]answer, len(creators)), make([]error, len(creators))
	var ready, ended sync.WaitGroup
	ready.Add(len(creators))
	for i, c := range creators {
		ended.Go(func() {
			ready.Done()
			ready.Wait()
			answers[i], errs[i] = c.daemon.tryCreate(c.file, "s3://"+bucket+"/"+key)
		})
	}
	ended.Wait()
	won := ""
	for i, a := range answers {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		if a.status != http.StatusOK {
			continue
		}
		if winner = a.done(t); won != "" && won != creators[i].file {
			t.Errorf("%s: both are done, from %s and %s", key, won, creators[i].file)
		}
		won = creators[i].file
	}
	for i, a := range answers {
		if a.status == http.StatusOK {
			continue
		}
		var p problem
		if err := json.Unmarshal(a.body, &p); err != nil || a.status != http.StatusPreconditionFailed || p.Code != "exists" {
			t.Errorf("%s: the answer is %d, %s", key, a.status, a.body)
		}
		if err := compareObjectIn(s.client, bucket, key, creators[i].file); err == nil {
			t.Errorf("%s: told that it exists, and the bytes of %s are there", key, creators[i].file)
		}
	}
	if won == "" {
		t.Fatalf("%s: nobody is done", key)
	}
	if err := compareObjectIn(s.client, bucket, key, won); err != nil {
		t.Error(err)
	}
	return winner
}

// contestants are two files for a contest.
type contestants struct {
	name string
	a, b string
}

func makeContestants(t *testing.T) (small, parts []contestants) {
	t.Helper()
	pair := func(name string, a, b int64) contestants {
		return contestants{name, makeFile(t, name+" A", a), makeFile(t, name+" B", b)}
	}
	const large = oneRequest + 1000
	small = []contestants{pair("small", 1000, 1000), pair("small, unlike", 5000, 70_000)}
	parts = []contestants{pair("parts", large, large), pair("parts, unlike", large, large+partSize)}
	return append(small, contestants{"small, the same", small[0].a, small[0].a}), append(parts, contestants{"parts, the same", parts[0].a, parts[0].a})
}

// Of those who create one object at once exactly one is done, on every store,
// with one daemon; and with two, where the store checks the condition when it
// makes the object.
func TestConformanceCreate(t *testing.T) {
	sideBySide(t)
	rounds := map[bool]int{false: 24, true: 6} // of small files, and of files in parts
	if full() {
		rounds = map[bool]int{false: 200, true: 200}
	}
	small, parts := makeContestants(t)
	for _, s := range []*realStore{versity(), fakeStore(t), cephStore(t)} {
		if s == nil {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			bucket := s.newBucket(t)
			one, two := startDaemon(t, s.env(s.url, "auto")...), startDaemon(t, s.env(s.url, "auto")...)
			for _, other := range []*daemon{one, two} {
				name := map[bool]string{true: "one daemon", false: "two daemons"}[other == one]
				if other == two && !s.createsOnce {
					t.Run("two daemons, one after the other", func(t *testing.T) {
						for i, c := range append(small, parts...) {
							inTurn(t, s, bucket, fmt.Sprint("turn-", i), one, two, c)
						}
					})
					continue
				}
				for large, pairs := range map[bool][]contestants{false: small, true: parts} {
					t.Run(fmt.Sprint(name, ", ", pairs[0].name), func(t *testing.T) {
						for n := range rounds[large] {
							c, key := pairs[n%len(pairs)], fmt.Sprintf("%s/%d/%v/%d", name, n, large, n)
							r := contest(t, s, bucket, key, creator{one, c.a}, creator{other, c.b})
							if inParts := r.Parts > 1; large && c.a != c.b && inParts == s.ignoresOnComplete {
								t.Errorf("the file went in %d parts", r.Parts)
							}
							remove(t, s, bucket, key) // all of them at once would not fit into some stores
						}
						t.Logf("%d contests", rounds[large])
					})
				}
			}
			waitFor(t, "what was begun in vain to be aborted", func() bool { return uploadsIn(t, s, bucket) == 0 })
			for _, key := range s.keys(t, bucket) {
				if strings.Contains(key, ".s3daemon-probe-") {
					t.Errorf("a probe is left: %s", key)
				}
			}
		})
	}
}

// inTurn creates an object by one daemon and then by the other.
func inTurn(t *testing.T, s *realStore, bucket, key string, one, two *daemon, c contestants) {
	t.Helper()
	for i, by := range []creator{{one, c.a}, {two, c.b}, {one, c.b}, {two, c.a}} {
		a, err := by.daemon.tryCreate(by.file, "s3://"+bucket+"/"+key)
		if err != nil {
			t.Fatal(err)
		}
		if by.file == c.a {
			a.done(t)
		} else {
			a.refused(t, http.StatusPreconditionFailed, "exists")
		}
		if err := compareObjectIn(s.client, bucket, key, c.a); err != nil {
			t.Errorf("after push %d: %v", i+1, err)
		}
	}
}

func remove(t *testing.T, s *realStore, bucket, key string) {
	t.Helper()
	if _, err := s.client.DeleteObject(context.Background(), &s3.DeleteObjectInput{Bucket: &bucket, Key: &key}); err != nil {
		t.Fatal(err)
	}
}

// uploadsIn returns how many multipart uploads the bucket has.
func uploadsIn(t *testing.T, s *realStore, bucket string) int {
	t.Helper()
	out, err := s.client.ListMultipartUploads(context.Background(), &s3.ListMultipartUploadsInput{Bucket: &bucket})
	if err != nil {
		t.Fatal(err)
	}
	return len(out.Uploads)
}

// The way to the store loses answers, and says that what was done was not. Then
// too one is done at most, and nobody is told that his own object is another's.
func TestCreateThroughFaults(t *testing.T) {
	sideBySide(t)
	rounds := 12
	if full() {
		rounds = 200
	}
	s, p := versity(), newFaultProxy(t)
	bucket := s.newBucket(t)
	t.Cleanup(func() { t.Logf("%d multipart uploads were left", abortUploads(t, bucket, "")) })
	env := s.env(p.url(), "auto", "S3DAEMON_ATTEMPTS=100")
	one, two := startDaemon(t, env...), startDaemon(t, env...)
	small, parts := makeContestants(t)
	late := errorIn200
	late.ops = lateWords
	p.follow(everyNthOf(3, seedOf(t), fault{what: cutAfter}, fault{what: cutAfter}, fault{what: cutAnswer, at: anywhere},
		internalError.afterStoring(), slowDown.afterStoring(), late.afterStoring(), fault{what: resetMidway, ops: carriers, at: anywhere}, fault{what: resetFirst}))
	for n := range rounds {
		pairs := small
		if n%4 == 3 {
			pairs = parts
		}
		c, key := pairs[n/4%len(pairs)], fmt.Sprint("k", n)
		contest(t, s, bucket, key, creator{one, c.a}, creator{two, c.b})
		// A completion may be carried out twice, with the same parts.
		made := slices.CompactFunc(p.objectsMade(bucket, key), func(a, b exchange) bool {
			return a.op == "CompleteMultipartUpload" && a.path == b.path
		})
		if len(made) != 1 {
			t.Errorf("%s: %d requests made an object: %+v", key, len(made), made)
		}
		remove(t, s, bucket, key)
	}
	p.follow(passAll)
	// What may still be completed is left alone for an hour, and not forgotten.
	waitFor(t, "the uploads that are left to be no more than the journals know", func() bool {
		return float64(uploadsIn(t, s, bucket)) <= one.metric("s3daemon_multipart_uploads")+two.metric("s3daemon_multipart_uploads")
	})
	t.Log(p.summary())
}

// What stands there is told, and the object stays as it is, with its versions
// and its properties.
func TestCreateTellsWhatIsThere(t *testing.T) {
	d, bucket := startDaemon(t), newBucket(t)
	a, b := makeFile(t, "a", 1000), makeFile(t, "b", 2000)
	r := d.push(t, a, "s3://"+bucket+"/k").done(t)
	answer, err := d.tryCreate(b, "s3://"+bucket+"/k")
	if err != nil {
		t.Fatal(err)
	}
	problem := answer.refused(t, http.StatusPreconditionFailed, "exists")
	head := headObject(t, bucket, "k")
	for _, says := range []string{"1000 bytes", r.ETag, head.LastModified.UTC().Format("2006-01-02T15:04:05Z"), "s3://" + bucket + "/k"} {
		if !strings.Contains(problem.Detail, says) {
			t.Errorf("the detail does not say %q: %s", says, problem.Detail)
		}
	}
	if problem.Store == nil || problem.Store.Status != http.StatusPreconditionFailed || problem.ID == "" {
		t.Errorf("the problem is %+v", problem)
	}
	if got := strings.Trim(aws.ToString(head.ETag), `"`); got != r.ETag {
		t.Errorf("the object's ETag is %s, it was %s", got, r.ETag)
	}
	if end := d.endOf(t, problem.ID); end.State != "failed" || end.Problem.Code != "exists" || end.Attempts != 1 {
		t.Errorf("the push is %+v", end)
	}
	checkObject(t, bucket, "k", a)
	d.push(t, b, "s3://"+bucket+"/k").done(t)
	checkObject(t, bucket, "k", b)
}
