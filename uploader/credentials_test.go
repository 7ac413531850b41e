package uploader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lsst-dm/s3daemon/push"
)

// keySource is a source of credentials that a test changes.
type keySource struct {
	*credentials
	dir         string
	asked       atomic.Int32
	gives       atomic.Pointer[aws.Credentials] // nil: none
	log         lockedBuffer
	timesItCame atomic.Int32
}

// newSource makes one that is known by two files, and gives what was set.
func newSource(t *testing.T, first *aws.Credentials) *keySource {
	s := &keySource{dir: t.TempDir()}
	s.gives.Store(first)
	files := []string{filepath.Join(s.dir, "id"), filepath.Join(s.dir, "secret")}
	provider := aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		s.asked.Add(1)
		if got := s.gives.Load(); got != nil {
			return *got, nil
		}
		return aws.Credentials{}, errors.New("there are none")
	}))
	load := func(context.Context) (origin, error) {
		held, _ := digestOf(files)
		return origin{provider: provider, files: files, held: held}, nil
	}
	from, _ := load(t.Context())
	s.credentials = &credentials{load: load, origin: from, log: slog.New(slog.NewJSONHandler(&s.log, nil)), came: func() { s.timesItCame.Add(1) }}
	return s
}

// write writes one of the files, as at the time that the test has.
func (s *keySource) write(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := errors.Join(os.WriteFile(path, []byte(content), 0o600), os.Chtimes(path, time.Now(), time.Now())); err != nil {
		t.Fatal(err)
	}
}

// sign has a request signed, and returns by which key and number.
func (s *keySource) sign(t *testing.T) (key string, number uint64, err error) {
	t.Helper()
	trip, ctx := newTrip(t.Context(), nil)
	got, err := s.Retrieve(ctx)
	return got.AccessKeyID, trip.signedBy, err
}

func (s *keySource) wantKey(t *testing.T, want string) (number uint64) {
	t.Helper()
	key, number, err := s.sign(t)
	if err != nil || key != want {
		t.Errorf("signed by %q, %v, want %q", key, err, want)
	}
	return number
}

func key(id string) *aws.Credentials {
	return &aws.Credentials{AccessKeyID: id, SecretAccessKey: "kept+Between/Us"}
}

// TestCredentialsChange has the files change one after the other, while requests
// are signed: each is signed at once, by old ones or by the new, and the source is
// asked once for each change.
func TestCredentialsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(t, key("old"))
		s.wantKey(t, "old")
		for range 30 {
			time.Sleep(lookEvery / 10)
			s.wantKey(t, "old")
		}
		if n := s.asked.Load(); n != 1 {
			t.Errorf("asked %d times while nothing changed", n)
		}
		s.write(t, "id", "1")
		s.gives.Store(key("new"))
		time.Sleep(lookEvery)
		s.write(t, "secret", "1") // before the look, which would take what is old enough by itself
		s.wantKey(t, "old")       // and a look begins
		for range 5 {
			time.Sleep(lookEvery / 10)
			s.wantKey(t, "old") // a change is not taken while it is young
		}
		for range 30 {
			time.Sleep(lookEvery / 10)
			begun := time.Now()
			if _, _, err := s.sign(t); err != nil || time.Since(begun) > 0 {
				t.Fatalf("signed after %v: %v", time.Since(begun), err)
			}
		}
		s.wantKey(t, "new")
		if n := s.asked.Load(); n != 2 {
			t.Errorf("asked %d times for one change", n)
		}
		if text := s.log.String(); strings.Count(text, "other credentials") != 1 || strings.Contains(text, "kept") || strings.Contains(text, "new\"") {
			t.Errorf("the log: %s", text)
		}
	})
}

// TestCredentialsAfterAPause has them change while nobody asks: the first request
// has the new ones.
func TestCredentialsAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(t, key("old"))
		s.wantKey(t, "old")
		s.write(t, "id", "1")
		s.gives.Store(key("new"))
		time.Sleep(time.Hour)
		s.wantKey(t, "new")
	})
}

// TestCredentialsThatCannotBeReadStay has a source fail after a change, for as long
// as it takes, and then give others.
func TestCredentialsThatCannotBeReadStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(t, key("old"))
		s.wantKey(t, "old")
		s.write(t, "id", "half of")
		s.gives.Store(nil)
		for range 50 {
			time.Sleep(lookEvery / 2)
			s.wantKey(t, "old")
		}
		if n := strings.Count(s.log.String(), "no new credentials"); n != 1 {
			t.Errorf("told %d times: %s", n, s.log.String())
		}
		if _, _, problem := s.state(); problem != nil {
			t.Errorf("a problem though there are old ones: %v", problem)
		}
		s.gives.Store(key("new"))
		time.Sleep(lookEvery)
		s.sign(t) // a look begins, if none has
		synctest.Wait()
		s.wantKey(t, "new")
	})
}

// TestCredentialsEnd has some that end, and a source that fails for a while.
func TestCredentialsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ending := func(id string, in time.Duration) *aws.Credentials {
			c := key(id)
			c.CanExpire, c.Expires = true, time.Now().Add(in)
			return c
		}
		s := newSource(t, ending("first", time.Hour))
		s.wantKey(t, "first")
		if _, end, _ := s.state(); !end.Equal(time.Now().Add(time.Hour)) {
			t.Errorf("they end at %v", end)
		}
		time.Sleep(time.Hour - renewBefore - time.Second)
		s.wantKey(t, "first")
		s.gives.Store(ending("second", time.Hour))
		time.Sleep(lookEvery + time.Second)
		s.wantKey(t, "first") // still good
		time.Sleep(lookEvery)
		s.wantKey(t, "second") // renewed beside that request

		s.gives.Store(nil)
		time.Sleep(time.Hour - time.Minute)
		begun := s.asked.Load()
		for range 110 {
			s.wantKey(t, "second")
			time.Sleep(lookEvery / 2)
		}
		if n := s.asked.Load() - begun; n < 5 || n > 6 {
			t.Errorf("in 55 s of their last minute the source was asked %d times", n)
		}
		s.wantKey(t, "second") // to its last moment
		time.Sleep(6 * time.Second)
		_, _, err := s.sign(t)
		if !stale(err) || !lacksCredentials(err) || needsRepair(err) || !transient(err) {
			t.Errorf("error %v is not one that passes", err)
		}
		if _, _, problem := s.state(); problem == nil {
			t.Error("no problem though they have ended")
		}
		asked := s.asked.Load()
		for range 100 {
			time.Sleep(lookEvery / 20)
			s.sign(t)
		}
		if n := s.asked.Load() - asked; n > 105 { // each waits for a look of its own at most
			t.Errorf("asked %d times", n)
		}
		s.gives.Store(ending("third", time.Hour))
		s.wantKey(t, "third")
		synctest.Wait()
		if _, _, problem := s.state(); problem != nil || s.timesItCame.Load() == 0 {
			t.Errorf("still %v", problem)
		}
	})
}

// TestCredentialsThatTheStoreRefuses has the store refuse them until the files
// change, and counts what it is asked meanwhile.
func TestCredentialsThatTheStoreRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(t, key("old"))
		number := s.wantKey(t, "old")
		expired := operation(refusal(400, "ExpiredToken"))
		if err := s.judge(t.Context(), number, expired); !stale(err) || renewed(err) || needsRepair(err) || !transient(err) {
			t.Errorf("judged %v", err)
		}
		if _, _, problem := s.state(); problem == nil || !strings.Contains(credentialsText(problem), "ExpiredToken") {
			t.Errorf("the problem is %v", problem)
		}
		begun, let := time.Now(), 0
		for time.Since(begun) < 20*time.Second {
			_, number, err := s.sign(t)
			switch {
			case err == nil:
				let++
				s.judge(t.Context(), number, expired)
			case !heldBack(err) || !stale(err) || answerOf(err).Code != "ExpiredToken" || lacksCredentials(err):
				t.Fatalf("error %v", err)
			}
			time.Sleep(lookEvery / 10)
		}
		if let < 8 || let > 21 {
			t.Errorf("%d requests in 20 s", let)
		}
		// Others, in one file of two: who is refused has them at once.
		s.gives.Store(key("new"))
		s.write(t, "id", "1")
		number = 0
		for number == 0 {
			_, number, _ = s.sign(t)
			time.Sleep(lookEvery / 10)
		}
		s.wantKey(t, "new")
		if err := s.judge(t.Context(), 1, expired); !renewed(err) {
			t.Errorf("a late refusal of the old ones: %v", err)
		}
		if _, _, problem := s.state(); problem != nil {
			t.Errorf("still %v", problem)
		}
		synctest.Wait()
		if s.timesItCame.Load() != 1 {
			t.Errorf("came %d times", s.timesItCame.Load())
		}
	})
}

// TestCredentialsChangeAtARefusal has the files change just before the store refuses
// the old ones: nobody waits for them to become old.
func TestCredentialsChangeAtARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(t, key("old"))
		number := s.wantKey(t, "old")
		s.write(t, "secret", "1")
		s.gives.Store(key("new"))
		begun := time.Now()
		if err := s.judge(t.Context(), number, refusal(403, "SignatureDoesNotMatch")); !renewed(err) || time.Since(begun) > 0 {
			t.Errorf("judged %v after %v", err, time.Since(begun))
		}
		s.wantKey(t, "new")
	})
}

// TestCredentialsThatAreTakenAgain has the store change its mind.
func TestCredentialsThatAreTakenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(t, key("old"))
		number := s.wantKey(t, "old")
		s.judge(t.Context(), number, refusal(403, "InvalidAccessKeyId"))
		s.judge(t.Context(), number, refusal(503, "SlowDown")) // which says nothing of them
		if _, _, problem := s.state(); problem == nil {
			t.Error("no problem after a refusal")
		}
		s.judge(t.Context(), number+1, nil)
		if _, _, problem := s.state(); problem == nil {
			t.Error("no problem since others were taken")
		}
		s.judge(t.Context(), number, nil)
		if _, _, problem := s.state(); problem != nil || s.timesItCame.Load() != 1 {
			t.Errorf("still %v, came %d times", problem, s.timesItCame.Load())
		}
		synctest.Wait()
	})
}

// TestCredentialsInVariables cannot change: every request hears from the store what
// is wrong with them.
func TestCredentialsInVariables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource(t, key("only"))
		s.origin.fixed = true
		number := s.wantKey(t, "only")
		for range 10 {
			err := s.judge(t.Context(), number, refusal(403, "InvalidAccessKeyId"))
			if stale(err) || !needsRepair(err) {
				t.Fatalf("judged %v", err)
			}
			s.wantKey(t, "only")
		}
		if n := s.asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		if _, _, problem := s.state(); problem == nil {
			t.Error("no problem though the store refuses them")
		}
	})
}

// TestDigest has files change in every way that there is.
func TestDigest(t *testing.T) {
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(name, content string) {
		t.Helper()
		must(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		must(os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	link := func(to, name string) {
		t.Helper()
		must(os.Symlink(to, filepath.Join(dir, name+".new")))
		must(os.Rename(filepath.Join(dir, name+".new"), filepath.Join(dir, name)))
	}
	put("a/keys", "first")
	put("b/keys", "second")
	link("a", "..data")
	link("..data/keys", "keys")
	file := filepath.Join(dir, "keys")
	last, _ := digestOf([]string{file})
	for _, step := range []struct {
		name    string
		do      func()
		changes bool
	}{
		{"nothing", func() {}, false},
		{"another link to the directory", func() { link("b", "..data") }, true},
		{"written anew, with the time and size that it had", func() {
			info, err := os.Stat(file)
			must(err)
			put("b/keys", "SECOND")
			must(os.Chtimes(file, info.ModTime(), info.ModTime()))
		}, true},
		{"touched", func() { must(os.Chtimes(file, time.Now(), time.Now())) }, false},
		{"another in its place", func() { put("x", "third"); must(os.Rename(filepath.Join(dir, "x"), file)) }, true},
		{"gone", func() { must(os.Remove(file)) }, true},
		{"empty, and there", func() { put("keys", "") }, true},
		{"a directory", func() { must(os.Remove(file)); must(os.Mkdir(file, 0o700)) }, true},
	} {
		step.do()
		held, _ := digestOf([]string{file})
		if (held != last) != step.changes {
			t.Errorf("%s: changed %v", step.name, held != last)
		}
		last = held
	}
	if one, _ := digestOf([]string{"/none", file}); one == last {
		t.Error("which files there are makes no difference")
	}
}

// TestOriginFiles has which files are watched, for each kind of source.
func TestOriginFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	token := file("token", "t")
	keys := file("keys", "k")
	shared := file("config", fmt.Sprintf("[default]\nregion = here-1\n[profile outer]\nrole_arn = arn:aws:iam::1:role/outer\nsource_profile = inner\n"+
		"[profile inner]\nrole_arn = arn:aws:iam::1:role/inner\nweb_identity_token_file = %s\n", token))
	none := filepath.Join(dir, "none")
	for _, tc := range []struct {
		name  string
		env   map[string]string
		keys  Keys
		fixed bool
		want  []string
	}{
		{"variables", map[string]string{"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}, Keys{}, true, nil},
		{"shared files", nil, Keys{}, false, []string{shared, none}},
		{"web identity", map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": token, "AWS_ROLE_ARN": "arn:aws:iam::1:role/r"}, Keys{}, false, []string{shared, none, token}},
		{"a container's", map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": token}, Keys{}, false, []string{shared, none, token}},
		{"a profile's token", map[string]string{"AWS_PROFILE": "outer"}, Keys{}, false, []string{shared, none, token}},
		{"keys in files", nil, Keys{ID: "a", SecretFile: keys}, false, []string{keys}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"} {
				t.Setenv(name, tc.env[name])
			}
			t.Setenv("AWS_ROLE_ARN", tc.env["AWS_ROLE_ARN"])
			t.Setenv("AWS_CONFIG_FILE", shared)
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", none)
			o, err := loadOrigin(t.Context(), tc.keys)
			if err != nil || o.fixed != tc.fixed || fmt.Sprint(o.files) != fmt.Sprint(tc.want) {
				t.Errorf("files %q, fixed %v, %v, want %q", o.files, o.fixed, err, tc.want)
			}
			if held, _ := digestOf(o.files); !o.fixed && held != o.held {
				t.Error("the digest is not of these files")
			}
		})
	}
}

// TestCredentialFilesAreNotPushed has keys in files that nothing else names, one by a
// profile, and pushes them by their names and by others.
func TestCredentialFilesAreNotPushed(t *testing.T) {
	token := write(t, "token", "kept+Between/Us")
	t.Run("keys", func(t *testing.T) {
		var key string
		r := newRig(t, func(c *Config) {
			key = write(t, "key", os.Getenv("AWS_SECRET_ACCESS_KEY")+"\n")
			c.Keys = Keys{ID: os.Getenv("AWS_ACCESS_KEY_ID"), SecretFile: key}
			t.Setenv("AWS_ACCESS_KEY_ID", "")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "")
		})
		path, content := r.file(t, "f", 10)
		if _, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}); err != nil {
			t.Fatal(err)
		}
		r.wantObject(t, "k", content)
		wantGuarded(t, r, key)
		if text := r.log.String(); strings.Contains(text, "other users") {
			t.Errorf("warned of a file that is nobody else's: %s", text)
		}
	})
	t.Run("keys that all may read", func(t *testing.T) {
		r := newRig(t, func(c *Config) {
			key := write(t, "key", os.Getenv("AWS_SECRET_ACCESS_KEY"))
			if err := os.Chmod(key, 0o644); err != nil {
				t.Fatal(err)
			}
			c.Keys = Keys{ID: os.Getenv("AWS_ACCESS_KEY_ID"), SecretFile: key}
		})
		if !strings.Contains(r.log.String(), "other users") {
			t.Error("no warning")
		}
	})
	t.Run("a profile", func(t *testing.T) {
		r := newRig(t, func(*Config) {
			t.Setenv("AWS_ACCESS_KEY_ID", "")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "")
			t.Setenv("AWS_CONFIG_FILE", write(t, "config", "[default]\nrole_arn = arn:aws:iam::1:role/r\nweb_identity_token_file = "+token+"\n"))
		})
		wantGuarded(t, r, token)
		wantGuarded(t, r, os.Getenv("AWS_CONFIG_FILE"))
	})
	t.Run("a profile that names it later", func(t *testing.T) {
		var configuration string
		r := newRig(t, func(*Config) {
			id, secret := os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
			t.Setenv("AWS_ACCESS_KEY_ID", "")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "")
			configuration = write(t, "config", "[default]\naws_access_key_id = "+id+"\naws_secret_access_key = "+secret+"\n")
			t.Setenv("AWS_CONFIG_FILE", configuration)
		})
		path, content := r.file(t, "f", 10)
		if _, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}); err != nil {
			t.Fatal(err)
		}
		r.wantObject(t, "k", content)
		later := write(t, "later", "kept+Between/Us")
		then := time.Now().Add(-time.Minute) // what is young is not taken yet
		if err := errors.Join(os.WriteFile(configuration, []byte("[default]\nrole_arn = arn:aws:iam::1:role/r\nweb_identity_token_file = "+later+"\n"), 0o600), os.Chtimes(configuration, then, then)); err != nil {
			t.Fatal(err)
		}
		t.Setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1") // which is not there
		r.credentials.look()
		wantGuarded(t, r, later)
	})
}

// wantGuarded pushes a file by its name, by a link, and by another name of its own.
func wantGuarded(t *testing.T, r *rig, path string) {
	t.Helper()
	dir := t.TempDir()
	link, twin := filepath.Join(dir, "link"), filepath.Join(dir, "twin")
	if err := errors.Join(os.Symlink(path, link), os.Link(path, twin)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, link, twin} {
		var e *push.Error
		if _, err := r.Push(t.Context(), push.Request{File: name, Destination: "s3://bucket/got"}); !errors.As(err, &e) || e.Code != push.FileNotAllowed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEndpointsWithPasswords come from where the daemon's configuration does not look.
func TestEndpointsWithPasswords(t *testing.T) {
	for _, endpoint := range []string{"https://me:kept+Between@store.example", "https://me:kept+Between%zz@store.example", "kept+Between"} {
		for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} {
			t.Run(name, func(t *testing.T) {
				t.Setenv(name, endpoint)
				_, err := New(t.Context(), Config{MaxConnections: 1, Attempts: 1, Journal: openJournal(t, t.TempDir()), Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
				if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "kept") {
					t.Errorf("%s: %v", endpoint, err)
				}
			})
		}
	}
}

// TestExposed tells which files others can read or write: of those with secrets.
func TestExposed(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("AWS_CONFIG_FILE", dir+"/config")
	from := origin{files: []string{dir + "/none", dir}}
	for name, mode := range map[string]os.FileMode{"mine": 0o600, "ours": 0o660, "read": 0o604, "written": 0o602, "config": 0o666} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		from.files = append(from.files, path)
	}
	volume := filepath.Join(dir, "volume")
	if err := errors.Join(os.Mkdir(volume, 0o777), os.Symlink("..2026", filepath.Join(volume, "..data")),
		os.WriteFile(filepath.Join(volume, "key"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	from.files = append(from.files, filepath.Join(volume, "key"))
	got := from.exposed()
	slices.Sort(got)
	if want := []string{dir + "/read", dir + "/written"}; !slices.Equal(got, want) {
		t.Errorf("exposed are %q, want %q", got, want)
	}
}
