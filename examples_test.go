package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// example returns the README's example in that language, asking the running
// daemon.
func (r *running) example(t *testing.T, language string) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n```"+language+"\n")
	code, _, closed := strings.Cut(rest, "\n```\n")
	if !found || !closed || !strings.Contains(code, "http://127.0.0.1:15556") {
		t.Fatalf("README.md has no %s example", language)
	}
	return strings.ReplaceAll(code, "http://127.0.0.1:15556", r.url)
}

// wantExample runs a program that pushes: first a file, then one that is not
// there, of which it has to tell.
func (r *running) wantExample(t *testing.T, program func(file, destination string) *exec.Cmd) {
	t.Helper()
	file := filepath.Join(r.dir, "a + b.fits")
	if err := os.WriteFile(file, []byte("light"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := program(file, "s3://bucket/x & y").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if got, err := r.store.Get("bucket", "x & y"); err != nil || string(got) != "light" {
		t.Errorf("the object: %q, %v", got, err)
	}
	if out, err := program(file+"x", "s3://bucket/k").CombinedOutput(); err == nil || !strings.Contains(string(out), "there is no file") {
		t.Errorf("a file that is not there: %v\n%s", err, out)
	}
}

func TestPythonExample(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3")
	}
	r := startRunning(t)
	code, _, _ := strings.Cut(r.example(t, "python"), "\nprint(")
	r.wantExample(t, func(file, destination string) *exec.Cmd {
		return exec.Command(python, "-c", code+"\nimport sys\nprint(push(sys.argv[1], sys.argv[2])[\"id\"])", file, destination)
	})
}

func TestCppExample(t *testing.T) {
	r := startRunning(t)
	source, binary := filepath.Join(t.TempDir(), "push.cc"), filepath.Join(t.TempDir(), "push")
	if err := os.WriteFile(source, []byte(r.example(t, "cpp")), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("c++", "-x", "c++", "-fsyntax-only", "-include", "curl/curl.h", os.DevNull).Run(); err != nil {
		t.Skip("there is no C++ compiler with libcurl's headers")
	}
	if out, err := exec.Command("c++", "-Wall", "-Werror", "-o", binary, source, "-lcurl").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r.wantExample(t, func(file, destination string) *exec.Cmd { return exec.Command(binary, file, destination) })
}
