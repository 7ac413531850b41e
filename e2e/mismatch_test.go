package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// checksumModes are the values of S3DAEMON_CHECKSUM.
var checksumModes = []string{"auto", "crc64nvme", "md5", "sha256"}

// A bit that is flipped on the way is noticed, whatever the store knows of
// checksums and in whatever way the daemon vouches for the bytes: once it costs
// an attempt, and where it happens each time the push fails, for that reason
// and soon, whether somebody waits or not. What the store refused leaves an
// older object as it was.
func TestFlippedBit(t *testing.T) {
	for _, mode := range checksumModes {
		for _, knows := range []bool{true, false} {
			name := mode + "/checksums known to the store"
			if !knows {
				name = mode + "/checksums unknown to the store"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel() // most of it is backoff
				m := newMismatch(t, mode, knows)
				for _, file := range []string{m.small, m.large} {
					m.once(t, file, fault{what: flips, at: anywhere})
					// Only the ETag tells of a checksum that the store ignored.
					refused := knows || mode != "crc64nvme"
					m.always(t, file, fault{what: flips, at: anywhere}, refused)
				}
			})
		}
	}
}

// An answer with the checksum of other bytes is no proof, even where the store
// has the right ones. Nor is one with their ETag, where that is what tells.
func TestWrongAnswers(t *testing.T) {
	for _, mode := range checksumModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			m := newMismatch(t, mode, mode != "md5")
			faults := []fault{{what: wrongChecksum}}
			if mode == "md5" {
				faults = append(faults, fault{what: wrongETag})
			}
			for _, f := range faults {
				for _, file := range []string{m.small, m.large} {
					m.once(t, file, f)
				}
				m.always(t, m.small, f, false)
				m.always(t, m.large, f, true)
			}
		})
	}
}

// mismatch is a daemon that vouches for bytes in one way, and a store whose
// requests and answers about them are tampered with.
type mismatch struct {
	proxy        *faultProxy
	daemon       *daemon
	store        func(plan) plan // what all plans are subject to
	bucket       string
	small, large string
}

const mismatchAttempts = 3

func newMismatch(t *testing.T, mode string, knows bool) *mismatch {
	t.Helper()
	m := &mismatch{proxy: newFaultProxy(t), store: func(p plan) plan { return p }}
	if !knows {
		m.store = unaware
	}
	m.proxy.follow(m.store(passAll))
	m.daemon = startDaemon(t, "S3_ENDPOINT_URL="+m.proxy.url(), "S3DAEMON_CHECKSUM="+mode,
		fmt.Sprintf("S3DAEMON_ATTEMPTS=%d", mismatchAttempts))
	m.bucket = newBucket(t) // looked through while the janitor is still there
	m.small, m.large = makeFile(t, "small", 100_000), makeFile(t, "large", oneRequest+100_000)
	t.Cleanup(func() { checkNothingDeleted(t, m.proxy) })
	return m
}

// once has the fault once: the push is done, with the right bytes.
func (m *mismatch) once(t *testing.T, file string, f fault) {
	t.Helper()
	met := m.proxy.count("", f.what)
	m.proxy.follow(m.store(only(carriers, once(f))))
	key := fmt.Sprintf("%s-%v-once", file[len(file)-5:], f.what)
	r := m.daemon.push(t, file, "s3://"+m.bucket+"/"+key).done(t)
	sums, err := sumsOf(file)
	if err != nil {
		t.Fatal(err)
	}
	if r.ETag != sums.etag || r.Checksum == nil || r.Checksum.Value != sums.crc64nvme {
		t.Errorf("%s: the receipt is %+v, the file has %+v", key, r, sums)
	}
	checkObject(t, m.bucket, key, file)
	if n := m.proxy.count("", f.what) - met; n != 1 {
		t.Errorf("%s: the fault was met %d times: %s", key, n, m.proxy.summary())
	}
	if r.Attempts < 2 {
		t.Errorf("%s: it took %d attempts, want more than one", key, r.Attempts)
	}
}

// always has the fault at each request, of one push with a caller who waits
// and of one without. kept is whether the object of before must be there still.
func (m *mismatch) always(t *testing.T, file string, f fault, kept bool) {
	t.Helper()
	m.proxy.follow(m.store(only(carriers, always(f))))
	key := fmt.Sprintf("%s-%v", file[len(file)-5:], f.what)
	older := []byte("the object of before")
	for _, key := range []string{key + "-waited", key + "-alone"} {
		if _, err := theStore.client.PutObject(context.Background(), &s3.PutObjectInput{
			Bucket: &m.bucket, Key: &key, Body: bytes.NewReader(older),
		}); err != nil {
			t.Fatal(err)
		}
	}
	id := m.daemon.pushAsync(t, file, "s3://"+m.bucket+"/"+key+"-alone").ID
	m.daemon.push(t, file, "s3://"+m.bucket+"/"+key+"-waited").refused(t, http.StatusBadGateway, "checksum_mismatch")
	r := m.daemon.endOf(t, id)
	if r.State != "failed" || r.Problem == nil || r.Problem.Code != "checksum_mismatch" || r.Problem.Detail == "" {
		t.Errorf("%s, not waited for: %s: %+v", key, r.State, r.Problem)
	}
	want, err := digestOf(bytes.NewReader(older))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{key + "-waited", key + "-alone"} {
		got, err := digestObject(m.bucket, key)
		if err != nil || kept && got != want {
			t.Errorf("%s: the object of before is not there any more: %d bytes, %v", key, got.size, err)
		}
	}
}
