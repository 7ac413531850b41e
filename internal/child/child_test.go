//go:build linux

package child

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

func TestFailures(t *testing.T) {
	never := func(string) bool { return false }
	_, err := Start(t.Context(), "it", exec.Command("sh", "-c", "echo no port >&2; exit 3"), Tied, never)
	if err == nil || !strings.Contains(err.Error(), "no port") || !strings.Contains(err.Error(), "status 3") {
		t.Errorf("a child that ends at once: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Start(ctx, "it", exec.Command("sleep", "60"), Tied, never)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a child that is never ready: %v", err)
	}

	ready := func(line string) bool { return line == "ready" }
	s, err := Start(t.Context(), "it", exec.Command("sh", "-c", `trap "echo sorry; exit 4" TERM; echo ready; while :; do sleep 0.01; done`), Tied, ready)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err == nil || !strings.Contains(err.Error(), "sorry") || !strings.Contains(err.Error(), "status 4") {
		t.Errorf("a child that ends badly: %v", err)
	}
}

func TestListening(t *testing.T) {
	var address string
	ready := Listening(&address)
	for _, line := range []string{"", "{", `{"msg":"starting","address":"127.0.0.1:1"}`, `{"msg":"listening"}`} {
		if ready(line) {
			t.Errorf("ready on %q", line)
		}
	}
	if !ready(`{"level":"INFO","msg":"listening","address":"127.0.0.1:43215"}`) || address != "127.0.0.1:43215" {
		t.Errorf("not ready on the line that says so; address %q", address)
	}
}
