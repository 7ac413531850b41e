package listen

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestSocket leaves a socket behind as a killed daemon does, and starts anew;
// one that somebody listens on must not be taken away.
func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	first, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	if _, err := All([]string{"unix:" + path}, own); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a socket in use: %v", err)
	}
	first.Close()
	second, err := All([]string{"unix:" + path}, own)
	if err != nil {
		t.Fatalf("a socket left behind: %v", err)
	}
	Close(second)
	if err := os.WriteFile(path, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := All([]string{"unix:" + path}, own); err == nil {
		t.Error("a file was taken for a socket left behind")
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "precious" {
		t.Errorf("the file: %q, %v", got, err)
	}
	empty := t.TempDir()
	if _, err := All([]string{"unix:" + empty}, own); err == nil {
		t.Error("a directory was taken for a socket left behind")
	}
	if _, err := os.Stat(empty); err != nil {
		t.Error(err)
	}
}

// TestAllOrNone: the address that can be had is free again after one that
// cannot.
func TestAllOrNone(t *testing.T) {
	taken, err := All([]string{"127.0.0.1:0", "unix:" + filepath.Join(t.TempDir(), "socket")}, own)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Close(taken) })
	if !strings.HasPrefix(Address(taken[0]), "127.0.0.1:") || !strings.HasPrefix(Address(taken[1]), "unix:/") {
		t.Errorf("listens on %s and %s", Address(taken[0]), Address(taken[1]))
	}
	free := "unix:" + filepath.Join(t.TempDir(), "socket")
	for _, l := range taken {
		_, err := All([]string{free, Address(l)}, own)
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), Address(l)) {
			t.Errorf("%s a second time: %v", Address(l), err)
		}
		again, err := All([]string{free}, own)
		if err != nil {
			t.Fatal(err)
		}
		Close(again)
	}
}

// own is a socket that is the process's alone.
var own = Socket{Mode: 0o600, Group: -1}
