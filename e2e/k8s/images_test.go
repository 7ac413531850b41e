package k8s

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// The images are made once, from the checkout that the module stands in, by
// docker or what CONTAINER names, and S3DAEMON_E2E_LOAD brings them to the
// cluster's nodes: a command that is called with their names. For example
//
//	S3DAEMON_E2E_LOAD="kind load docker-image"
//	S3DAEMON_E2E_LOAD="minikube image load"
//
// Those in a registry that the nodes reach are named instead:
// S3DAEMON_E2E_IMAGE, S3DAEMON_E2E_TOOL_IMAGE, S3DAEMON_E2E_BUSYBOX_IMAGE.

// image is the daemon's.
func image(t testing.TB) string { t.Helper(); return daemonImage.name(t) }

// toolImage is that of the store and of the writers; see tool/main.go.
func toolImage(t testing.TB) string { t.Helper(); return theToolImage.name(t) }

// busyboxImage is that of a shell.
func busyboxImage(t testing.TB) string { t.Helper(); return theBusyboxImage.name(t) }

var (
	daemonImage     = &madeImage{variable: "S3DAEMON_E2E_IMAGE", tag: "s3daemon:e2e", build: buildDaemon}
	theToolImage    = &madeImage{variable: "S3DAEMON_E2E_TOOL_IMAGE", tag: "s3daemon-e2e-tool:e2e", build: buildTool}
	theBusyboxImage = &madeImage{variable: "S3DAEMON_E2E_BUSYBOX_IMAGE", tag: "s3daemon-e2e-busybox:e2e", build: buildBusybox}
)

// madeImage is one that is made when it is asked for first.
type madeImage struct {
	variable string // has the name of one that is there
	tag      string
	build    func(tag string) error

	once sync.Once
	err  error
}

func (m *madeImage) name(t testing.TB) string {
	t.Helper()
	needCluster(t)
	if there := os.Getenv(m.variable); there != "" {
		return there
	}
	m.once.Do(func() {
		if m.err = m.build(m.tag); m.err == nil {
			m.err = load(m.tag)
		}
	})
	if m.err != nil {
		t.Fatalf("make the image %s: %v", m.tag, m.err)
	}
	return m.tag
}

// engine is what makes images.
func engine() string { return cmp.Or(os.Getenv("CONTAINER"), "docker") }

func load(tag string) error {
	command := os.Getenv("S3DAEMON_E2E_LOAD")
	if command == "" {
		return errors.New(`S3DAEMON_E2E_LOAD has to name a command that brings an image to the nodes, such as "kind load docker-image"`)
	}
	_, err := run("", "sh", "-c", command+` "$@"`, "sh", tag)
	return err
}

func buildDaemon(tag string) error {
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	_, err = run("", "make", "-C", root, "image", "VERSION=e2e", "IMAGE="+tag, "CONTAINER="+engine())
	return err
}

func buildTool(tag string) error {
	return buildFrom(tag, "COPY tool /tool\nUSER 65532:65532\nENTRYPOINT [\"/tool\"]\n", func(dir string) error {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "tool"), "./tool")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", cmd, err, out)
		}
		return nil
	})
}

// buildBusybox makes an image of this host's busybox, which has to be a static
// one.
func buildBusybox(tag string) error {
	return buildFrom(tag, "COPY bin /bin\nUSER 65532:65532\nCMD [\"/bin/sh\"]\n", func(dir string) error {
		path, err := exec.LookPath("busybox")
		if err != nil {
			return fmt.Errorf("%w; or S3DAEMON_E2E_BUSYBOX_IMAGE names an image", err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		bin := filepath.Join(dir, "bin")
		if err := errors.Join(os.Mkdir(bin, 0o755), os.WriteFile(filepath.Join(bin, "busybox"), content, 0o755)); err != nil {
			return err
		}
		list, err := run("", path, "--list")
		if err != nil {
			return err
		}
		for _, applet := range strings.Fields(list.stdout) {
			if applet == "busybox" {
				continue
			}
			if err := os.Symlink("busybox", filepath.Join(bin, applet)); err != nil {
				return err
			}
		}
		return nil
	})
}

// buildFrom makes an image from scratch, of what fill puts into the directory.
func buildFrom(tag, dockerfile string, fill func(dir string) error) error {
	dir, err := os.MkdirTemp("", "s3daemon-e2e-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := fill(dir); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\n"+dockerfile), 0o644); err != nil {
		return err
	}
	_, err = run("", engine(), "build", "--quiet", "--tag", tag, dir)
	return err
}
