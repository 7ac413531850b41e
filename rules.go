package main

import (
	"errors"
	"log/slog"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"github.com/lsst-dm/s3daemon/listen"
)

// proxyPasswords returns what the proxies of the environment are shown, which neither
// they nor anybody else may say again.
func proxyPasswords(getenv func(string) string) []string {
	var found []string
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		proxy, err := url.Parse(getenv(name))
		if err != nil {
			continue
		}
		if password, is := proxy.User.Password(); is {
			found = append(found, password)
		}
	}
	return found
}

// guardedPaths returns what no push reads, whatever leads there: the daemon's
// own data, and where credentials are, of this daemon or of another program of
// its user. Files are there beside their directories where they may be links to
// elsewhere, or must be known whatever else is in the directory.
func guardedPaths(cfg config, getenv func(string) string) []string {
	paths := []string{cfg.dataDir, filepath.Join(cfg.dataDir, "journal.db"),
		"/run/secrets", "/var/run/secrets"} // of containers and pods
	if home := homeOf(getenv); home != "" {
		aws := filepath.Join(home, ".aws")
		paths = append(paths, aws, filepath.Join(aws, "credentials"), filepath.Join(aws, "config"))
	}
	for _, name := range []string{
		"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
		"AWS_ACCESS_KEY_ID_FILE", "AWS_SECRET_ACCESS_KEY_FILE", "AWS_SESSION_TOKEN_FILE",
		"CREDENTIALS_DIRECTORY", // systemd's
	} {
		if path := getenv(name); path != "" {
			paths = append(paths, path)
		}
	}
	if cfg.tokenFile != "" {
		paths = append(paths, cfg.tokenFile)
	}
	for i, path := range paths {
		if absolute, err := filepath.Abs(path); err == nil {
			paths[i] = absolute
		}
	}
	return paths
}

// homeOf returns the directory in which the AWS SDK looks for its files: where HOME is
// not set, as in a service or a container, that of the user by the system's list.
func homeOf(getenv func(string) string) string {
	if home := getenv("HOME"); home != "" {
		return home
	}
	if u, err := user.Current(); err == nil {
		return u.HomeDir
	}
	return ""
}

// warnOfDataDir says in the log who else may have the daemon push things by what
// he puts there. In a pod it may be a volume, whose root is open to all users as
// Kubernetes makes it; the containers that see it are those that were given it.
func warnOfDataDir(dataDir string, getenv func(string) string, log *slog.Logger) {
	dir := listen.Replaceable(filepath.Join(dataDir, "journal.db"))
	if dir != "" && (dir != dataDir || getenv("KUBERNETES_SERVICE_HOST") == "") {
		log.Warn("every user of this host can put another journal in the place of the daemon's, and have pushed what it may read: take the right to write to the directory away (chmod o-w), or choose another", "data_dir", dataDir, "directory", dir)
	}
}

// rootPatience is how long the start of the daemon waits for a root.
const rootPatience = time.Second

// warnOfRoots says in the log which of the roots nothing can be read beneath
// now. That may pass, as where a mount comes later, so it keeps the daemon from
// nothing.
func warnOfRoots(roots []string, log *slog.Logger) {
	for _, dir := range roots {
		answer := make(chan error, 1)
		go func() {
			root, err := os.OpenRoot(dir)
			if err == nil {
				root.Close()
			}
			answer <- err
		}()
		var err error
		select {
		case err = <-answer:
		case <-time.After(rootPatience):
			err = errors.New("its file system does not answer")
		}
		if err != nil {
			log.Warn("no file can be read beneath a directory of S3DAEMON_ROOTS as long as this is so", "directory", dir, "error", err)
		}
	}
}
