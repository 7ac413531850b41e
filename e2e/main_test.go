package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// storeDirEnv makes the test binary be the store instead of the tests: see
// startStore.
const storeDirEnv = "S3DAEMON_E2E_STORE_DIR"

// full reports whether the heavy tests run at the size they are named after.
func full() bool { return os.Getenv("S3DAEMON_E2E_FULL") == "1" }

// sideBySide lets a test that mostly waits run beside others, after those that
// are alone. It has a daemon, a proxy and a bucket of its own, and measures no
// time that could be short on a machine that is busy. At full size it is alone.
func sideBySide(t *testing.T) {
	t.Helper()
	if !full() {
		t.Parallel()
	}
}

// tempDir holds all that outlives one test: the binaries and the store.
// TestMain makes and removes it. Its path is short, for the sockets in it.
var tempDir string

// repoDir is the repository's root, as an absolute path.
var repoDir string

func TestMain(m *testing.M) {
	if dir := os.Getenv(storeDirEnv); dir != "" {
		if err := serveStore(dir); err != nil {
			fmt.Fprintln(os.Stderr, "e2e store:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(controlEnv) != "" {
		if err := serveControl(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e control:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if servers := os.Getenv(proberEnv); servers != "" {
		if err := probe(servers); err != nil {
			fmt.Fprintln(os.Stderr, "e2e prober:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (code int, err error) {
	if repoDir, err = filepath.Abs(".."); err != nil {
		return 0, err
	}
	if tempDir, err = os.MkdirTemp("", "s3d-e2e-"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(tempDir)
	defer theBrowser.stop()
	if theStore, err = startStore(filepath.Join(tempDir, "store")); err != nil {
		return 0, fmt.Errorf("start the store: %w", err)
	}
	if code = m.Run(); code != 0 {
		fmt.Fprintf(os.Stderr, "e2e: the store wrote:\n%s\n", tail(theStore.out.bytes(), 4000))
	}
	if found := theLeaks.report(); len(found) > 0 {
		return code, errors.Join(fmt.Errorf("secrets got out:\n\t%s", strings.Join(found, "\n\t")), theStore.stop())
	}
	fmt.Fprintf(os.Stderr, "e2e: no secret in %d MB that the processes said, and %d files that they left\n", theLeaks.bytes>>20, theLeaks.files)
	return code, theStore.stop()
}

// buildBinaries builds what a user would, once, and returns the directory.
// Tests of the harness alone pass without it.
var buildBinaries = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(tempDir, "bin")
	cmd := exec.Command("go", "build", "-o", dir+"/", ".", "./send", "./internal/hangfs", "./internal/history")
	cmd.Dir = repoDir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return dir, nil
})

// binaryPath returns the path of a built binary.
func binaryPath(t testing.TB, name string) string {
	t.Helper()
	dir, err := buildBinaries()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// raceBuild reports whether the binaries have the race detector in them, which
// costs memory of its own.
func raceBuild() bool { return strings.Contains(os.Getenv("GOFLAGS"), "-race") }
