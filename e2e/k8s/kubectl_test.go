package k8s

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// patience is how long a test waits for what has to happen at once, on a busy
// cluster too: an image is started, a pod is scheduled.
const patience = 2 * time.Minute

// needCluster skips the test unless there is leave to use the cluster.
func needCluster(t testing.TB) {
	t.Helper()
	if os.Getenv("S3DAEMON_E2E_KUBE") != "1" {
		t.Skip("S3DAEMON_E2E_KUBE=1 has this test use the cluster that kubectl knows")
	}
}

// said is what a command wrote.
type said struct{ stdout, stderr string }

// run runs a command with that standard input to its end, for no longer than
// patience and what it may wait itself.
func run(stdin string, name string, args ...string) (said, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, tail(stderr.String()+stdout.String(), 4000))
	}
	return said{stdout.String(), stderr.String()}, err
}

// kubectl runs kubectl, and fails the test where it fails. It is for what
// belongs to no namespace.
func kubectl(t testing.TB, args ...string) string {
	t.Helper()
	s, err := run("", "kubectl", args...)
	if err != nil {
		t.Fatal(err)
	}
	return s.stdout
}

// kubectl runs kubectl in the namespace, and fails the test where it fails.
func (n *namespace) kubectl(args ...string) string {
	n.t.Helper()
	s, err := n.try(args...)
	if err != nil {
		n.t.Fatal(err)
	}
	return s.stdout
}

// try runs kubectl in the namespace.
func (n *namespace) try(args ...string) (said, error) {
	return run("", "kubectl", n.args(args)...)
}

func (n *namespace) args(args []string) []string {
	return append([]string{"--namespace", n.name}, args...)
}

// apply makes objects, or changes them. What the server warns of fails the test:
// a field that it does not know, a pod that the restricted standard would refuse.
func (n *namespace) apply(yaml string) {
	n.t.Helper()
	if err := n.tryApply(yaml); err != nil {
		n.t.Fatal(err)
	}
}

func (n *namespace) tryApply(yaml string, args ...string) error {
	s, err := run(yaml, "kubectl", n.args(append([]string{"apply", "--filename", "-"}, args...))...)
	return errors.Join(err, warnings(s.stderr))
}

// warnings are what the API server has to say against objects that it takes.
func warnings(stderr string) error {
	var all []error
	for line := range strings.Lines(stderr) {
		if strings.HasPrefix(line, "Warning:") {
			all = append(all, errors.New(strings.TrimSpace(line)))
		}
	}
	return errors.Join(all...)
}

// exec runs a command in a container and returns its standard output.
func (n *namespace) exec(pod, container string, command ...string) string {
	n.t.Helper()
	return n.kubectl(append([]string{"exec", pod, "--container", container, "--"}, command...)...)
}

// until asks again and again until there is no error, and fails the test when
// that is not so after the limit.
func (n *namespace) until(limit time.Duration, what string, ask func() error) {
	n.t.Helper()
	if err := poll(limit, ask); err != nil {
		n.t.Fatalf("%s, within %v: %v", what, limit, err)
	}
}

// poll asks again and again until there is no error, and returns the last one
// when that is not so after the limit.
func poll(limit time.Duration, ask func() error) error {
	err := ask()
	for end := time.Now().Add(limit); err != nil && time.Now().Before(end); err = ask() {
		time.Sleep(250 * time.Millisecond)
	}
	return err
}

// tail returns the last n bytes of text.
func tail(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return "...\n" + text[len(text)-n:]
}
