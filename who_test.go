package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsst-dm/s3daemon/listen"
)

// TestWarnOfReplaceable: a socket or a journal that others can replace is warned
// of, and no other.
func TestWarnOfReplaceable(t *testing.T) {
	dir := t.TempDir()
	for mode, warned := range map[os.FileMode]bool{0o755: false, 0o770: false, 0o777: true, 0o777 | os.ModeSticky: false} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		l, err := listen.All([]string{"unix:" + filepath.Join(dir, "socket")}, listen.Socket{Mode: 0o660, Group: -1})
		if err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		warnOfAddress(config{}, l[0], slog.New(slog.NewTextHandler(&said, nil)))
		if got := strings.Contains(said.String(), "directory="+dir); got != warned || warned != (said.Len() > 0) {
			t.Errorf("%v: %q", mode, said.String())
		}
		listen.Close(l)
		nowhere := func(string) string { return "" }
		pod := func(string) string { return "10.96.0.1" }
		for _, c := range []struct {
			dataDir string
			getenv  func(string) string
			warned  bool
		}{
			{dir, nowhere, warned},
			{dir, pod, false}, // a volume's root
			{filepath.Join(dir, "in it"), pod, warned},
		} {
			said.Reset()
			warnOfDataDir(c.dataDir, c.getenv, slog.New(slog.NewTextHandler(&said, nil)))
			if got := strings.Contains(said.String(), " directory="+dir); got != c.warned || c.warned != (said.Len() > 0) {
				t.Errorf("%s, %v: %q", c.dataDir, mode, said.String())
			}
		}
	}
}
