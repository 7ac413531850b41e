package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/s3mem"
)

// Keys that only these tests have, so that the end of the suite can tell where one
// of them got out.
const (
	newAccessKey = "e2e-access-after"
	newSecretKey = "e2e-Secret/after+the/Rotation"
	oldToken     = "e2e-Token/before+it/Expired=="
	newToken     = "e2e-Token/after+it/Expired=="
)

// pickyStore is a gofakes3 that knows two pairs of keys, behind a door that takes
// only those that a test allows.
type pickyStore struct {
	url     string
	client  *s3.Client
	handler http.Handler

	mu    sync.Mutex
	wants func(id, token string) (refusal string) // a code, or empty
	taken map[string]int                          // requests of each key id and token that were let in
	shut  []time.Time                             // of those that were not
}

var signedBy = regexp.MustCompile(`Credential=([^/]+)/`)

func startPickyStore(t *testing.T) *pickyStore {
	t.Helper()
	s := &pickyStore{taken: make(map[string]int), wants: func(string, string) string { return "" }}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	backend := gofakes3.New(s3mem.New(), gofakes3.WithV4Auth(map[string]string{accessKey: secretKey, newAccessKey: newSecretKey}), gofakes3.WithoutVersioning()).Server()
	s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if match := signedBy.FindStringSubmatch(r.Header.Get("Authorization")); match != nil && r.Method != http.MethodHead {
			if code := s.refuses(match[1], r.Header.Get("X-Amz-Security-Token")); code != "" {
				io.Copy(io.Discard, r.Body)
				w.WriteHeader(http.StatusForbidden)
				fmt.Fprintf(w, "<Error><Code>%s</Code><Message>not any more</Message></Error>", code)
				return
			}
		}
		backend.ServeHTTP(w, r)
	})
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: s.handler}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("the store: %v", err)
		}
	})
	s.url = "http://" + listener.Addr().String()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	options := clientOptions(s.url, transport)
	options.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey}, nil
	})
	s.client = s3.New(options)
	if _, err := s.client.CreateBucket(context.Background(), &s3.CreateBucketInput{Bucket: aws.String("raw")}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *pickyStore) refuses(id, token string) (code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if code = s.wants(id, token); code != "" {
		s.shut = append(s.shut, time.Now())
		return code
	}
	s.taken[id+token]++
	return ""
}

// allow has the store take requests of that key or token alone from now on.
func (s *pickyStore) allow(only, code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wants = func(id, token string) string {
		if id == only || token == only {
			return ""
		}
		return code
	}
	s.shut = nil
}

func (s *pickyStore) refused() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Time(nil), s.shut...)
}

// hasTaken returns how many requests of a key, and no token, the store let in.
func (s *pickyStore) hasTaken(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken[id]
}

// keyFiles is a directory with an id and a secret, as Kubernetes lays it out: names
// that are links through ..data, which leads to the directory that has them.
type keyFiles struct {
	t   *testing.T
	dir string
	n   int
}

func newKeyFiles(t *testing.T) *keyFiles {
	k := &keyFiles{t: t, dir: t.TempDir()}
	k.swapLink(accessKey, secretKey)
	for _, name := range []string{"id", "secret"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(k.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func (k *keyFiles) env() []string {
	return []string{
		"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=",
		"AWS_ACCESS_KEY_ID_FILE=" + filepath.Join(k.dir, "id"), "AWS_SECRET_ACCESS_KEY_FILE=" + filepath.Join(k.dir, "secret"),
	}
}

// swapLink has ..data lead to a new directory.
func (k *keyFiles) swapLink(id, secret string) {
	k.t.Helper()
	k.n++
	next := fmt.Sprintf("..%d", k.n)
	err := errors.Join(
		os.Mkdir(filepath.Join(k.dir, next), 0o700),
		os.WriteFile(filepath.Join(k.dir, next, "id"), []byte(id+"\n"), 0o600),
		os.WriteFile(filepath.Join(k.dir, next, "secret"), []byte(secret+"\n"), 0o600),
		os.Symlink(next, filepath.Join(k.dir, "..tmp")),
		os.Rename(filepath.Join(k.dir, "..tmp"), filepath.Join(k.dir, "..data")),
	)
	if err != nil {
		k.t.Fatal(err)
	}
}

// oneByOne puts a new file in the place of each, the second a while after the first.
func (k *keyFiles) oneByOne(id, secret string) {
	k.t.Helper()
	put := func(name, content string) {
		err := errors.Join(
			os.WriteFile(filepath.Join(k.dir, name+".new"), []byte(content), 0o600),
			os.Rename(filepath.Join(k.dir, name+".new"), filepath.Join(k.dir, name)),
		)
		if err != nil {
			k.t.Fatal(err)
		}
	}
	put("id", id)
	time.Sleep(300 * time.Millisecond) // what is between two files is the matter
	put("secret", secret)
}

// inPlace writes each file anew, where it is, in two pieces.
func (k *keyFiles) inPlace(id, secret string) {
	k.t.Helper()
	for name, content := range map[string]string{"id": id, "secret": secret} {
		f, err := os.OpenFile(filepath.Join(k.dir, name), os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			k.t.Fatal(err)
		}
		half := len(content) / 2
		_, err1 := f.WriteString(content[:half])
		time.Sleep(200 * time.Millisecond) // a file that is half written is the matter
		_, err2 := f.WriteString(content[half:] + "\n")
		if err := errors.Join(err1, err2, f.Close()); err != nil {
			k.t.Fatal(err)
		}
	}
}

// TestKeysRotate changes the files that have the keys while callers push. The store
// takes both pairs until the new one is in place, and none but the new from that
// moment on. No push fails; not even of those with a single attempt, where both files
// change at one moment.
func TestKeysRotate(t *testing.T) {
	for name, by := range map[string]struct {
		rotate   func(*keyFiles, string, string)
		attempts string
	}{
		"a link to other files":    {(*keyFiles).swapLink, "1"},
		"one file after the other": {(*keyFiles).oneByOne, "4"},
		"written anew":             {(*keyFiles).inPlace, "4"},
	} {
		t.Run(name, func(t *testing.T) {
			s, keys := startPickyStore(t), newKeyFiles(t)
			d := startDaemon(t, append(keys.env(), "S3_ENDPOINT_URL="+s.url, "S3DAEMON_ATTEMPTS="+by.attempts)...)
			small, large := makeFile(t, "small", 10_000), makeFile(t, "large", oneRequest+1)
			var done atomic.Int32
			stop := make(chan struct{})
			var callers sync.WaitGroup
			for i := range 6 {
				callers.Go(func() {
					file := small
					if i == 0 {
						file = large
					}
					for n := 0; ; n++ {
						select {
						case <-stop:
							return
						default:
						}
						if a := d.push(t, file, fmt.Sprintf("s3://raw/%d", i)); a.status != http.StatusOK {
							t.Errorf("push %d of caller %d: %d %s", n, i, a.status, a.body)
							return
						}
						done.Add(1)
					}
				})
			}
			defer callers.Wait()
			defer sync.OnceFunc(func() { close(stop) })()
			until(t, "pushes with the old keys", func() bool { return s.hasTaken(accessKey) > 20 })
			by.rotate(keys, newAccessKey, newSecretKey)
			s.allow(newAccessKey, "InvalidAccessKeyId")
			until(t, "pushes with the new keys", func() bool { return s.hasTaken(newAccessKey) > 20 })
			t.Logf("%d pushes; the store refused %d requests by old keys", done.Load(), len(s.refused()))
			d.logged(t, 1, "there are other credentials now")
			if d.metric("s3daemon_credentials_usable") != 1 {
				t.Error("the credentials count as unusable")
			}
		})
	}
}

// until waits for something that the daemon brings about.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	if err := poll(patience, func() error {
		if is() {
			return nil
		}
		return errNotYet
	}); err != nil {
		t.Fatalf("waiting for %s: %v", what, err)
	}
}

// TestSessionTokenExpires has the store refuse a session token for some seconds before
// there is another in the shared file. Callers with attempts to spare, and pushes that
// nobody waits for, are done then; meanwhile the store is asked once a second or so,
// and whoever looks is told.
func TestSessionTokenExpires(t *testing.T) {
	s := startPickyStore(t)
	shared := filepath.Join(t.TempDir(), "credentials")
	write := func(token string) {
		t.Helper()
		text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\naws_session_token = %s\n", accessKey, secretKey, token)
		if err := errors.Join(os.WriteFile(shared+".new", []byte(text), 0o600), os.Rename(shared+".new", shared)); err != nil {
			t.Fatal(err)
		}
	}
	write(oldToken)
	d := startDaemon(t, "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_SHARED_CREDENTIALS_FILE="+shared, "S3_ENDPOINT_URL="+s.url, "S3DAEMON_ATTEMPTS=100")
	file := makeFile(t, "file", 10_000)
	d.push(t, file, "s3://raw/before").done(t)
	s.allow(newToken, "ExpiredToken")
	var callers sync.WaitGroup
	defer callers.Wait()
	for i := range 5 {
		callers.Go(func() {
			if a := d.push(t, file, fmt.Sprintf("s3://raw/waited-%d", i)); a.status != http.StatusOK {
				t.Errorf("a caller who waited: %d %s", a.status, a.body)
			}
		})
	}
	for i := range 20 {
		d.pushAsync(t, file, fmt.Sprintf("s3://raw/async-%d", i))
	}
	until(t, "the store to have refused some", func() bool { return len(s.refused()) >= 4 })
	if d.metric("s3daemon_credentials_usable") != 0 {
		t.Error("the credentials count as usable")
	}
	if a := d.get(t, "/readyz"); a.status != http.StatusOK || !strings.Contains(string(a.body), "ExpiredToken") {
		t.Errorf("/readyz: %d %s", a.status, a.body)
	}
	// Those that had been signed by then are refused together.
	at := s.refused()
	at = at[min(len(at)-1, 25):]
	until(t, "three more refusals", func() bool { return len(s.refused()) >= len(at)+3 })
	write(newToken)
	until(t, "all pushes to be done", func() bool { return d.metric(`s3daemon_queue_depth`) == 0 })
	at = s.refused()
	if over := at[len(at)-1].Sub(at[0]).Seconds(); float64(len(at)) > 25+2*over+2 {
		t.Errorf("the store was asked %d times in %.1f s by what it refuses", len(at), over)
	}
	callers.Wait()
	if d.metric("s3daemon_credentials_usable") != 1 {
		t.Error("the credentials count as unusable still")
	}
	d.logged(t, 1, "the store refuses the credentials")
	for _, token := range []string{oldToken, newToken} {
		checkNoSecret(t, "the daemon's output", d.out.bytes(), token)
	}
}
