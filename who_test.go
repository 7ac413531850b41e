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
		said.Reset()
		warnOfDataDir(dir, slog.New(slog.NewTextHandler(&said, nil)))
		if got := strings.Contains(said.String(), " directory="+dir); got != warned || warned != (said.Len() > 0) {
			t.Errorf("%v: %q", mode, said.String())
		}
	}
}
