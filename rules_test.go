package main

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestGuardedPaths(t *testing.T) {
	environment := map[string]string{"HOME": "/home/me", "AWS_SHARED_CREDENTIALS_FILE": "/etc/s3/credentials", "AWS_WEB_IDENTITY_TOKEN_FILE": "/etc/token",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/etc/token2", "AWS_CONFIG_FILE": "config", "AWS_SECRET_ACCESS_KEY_FILE": "/etc/s3/secret", "CREDENTIALS_DIRECTORY": "/run/credentials/s3daemon.service"}
	got := guardedPaths(config{dataDir: "/srv/s3daemon", tokenFile: "/etc/s3daemon/tokens"}, func(name string) string { return environment[name] })
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/srv/s3daemon", "/srv/s3daemon/journal.db", "/etc/s3daemon/tokens", "/home/me/.aws", "/home/me/.aws/credentials", "/etc/s3/credentials", "/etc/s3/secret", "/etc/token", "/etc/token2",
		filepath.Join(here, "config"), "/run/credentials/s3daemon.service", "/run/secrets", "/var/run/secrets"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not guarded: %q", want, got)
		}
	}
	got = guardedPaths(config{dataDir: "/d"}, func(string) string { return "" })
	if slices.Contains(got, here) || slices.Contains(got, "/") {
		t.Errorf("without an environment: %q", got)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(me.HomeDir, ".aws", "credentials"); me.HomeDir != "" && !slices.Contains(got, want) {
		t.Errorf("without HOME, where the SDK looks into %s: %q", want, got)
	}
}

func TestProxyPasswords(t *testing.T) {
	environment := map[string]string{"HTTPS_PROXY": "http://me:pass%2Fword@proxy:3128", "http_proxy": "http://you:other@proxy", "HTTP_PROXY": "http://proxy", "https_proxy": "%"}
	got := proxyPasswords(func(name string) string { return environment[name] })
	if slices.Sort(got); !slices.Equal(got, []string{"other", "pass/word"}) {
		t.Errorf("%q", got)
	}
}

func TestWarnOfRoots(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	warnOfRoots([]string{dir, dir + "/none"}, slog.New(slog.NewTextHandler(&log, nil)))
	if lines := strings.Count(log.String(), "\n"); lines != 1 || !strings.Contains(log.String(), dir+"/none") {
		t.Errorf("the log has %d lines: %s", lines, &log)
	}
}

// TestFilesThatAreNotAllowed: the rules of the environment reach those who open.
func TestFilesThatAreNotAllowed(t *testing.T) {
	dir, home := t.TempDir(), t.TempDir()
	credentials := filepath.Join(home, ".aws", "credentials")
	if err := os.Mkdir(filepath.Dir(credentials), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir + "/a", credentials, home + "/elsewhere"} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"out": home + "/elsewhere", "credentials": credentials} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, roots := range []string{"", dir} {
		t.Run("roots "+filepath.Base(roots), func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			r := startRunning(t, "HOME="+home, "S3DAEMON_ROOTS="+roots, "S3DAEMON_DATA_DIR="+data)
			elsewhere := 200
			if roots != "" {
				elsewhere = 403
			}
			for path, want := range map[string]int{
				dir + "/a": 200, dir + "/out": elsewhere, home + "/elsewhere": elsewhere,
				dir + "/credentials": 403, credentials: 403, data + "/journal.db": 403,
			} {
				resp, err := http.PostForm(r.url+"/push", url.Values{"file": {path}, "destination": {"s3://bucket/key"}})
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != want {
					t.Errorf("%s is answered %d, want %d", path, resp.StatusCode, want)
				}
			}
		})
	}
}
