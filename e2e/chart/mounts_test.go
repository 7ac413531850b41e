package chart

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

func mounted(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		used := make(map[string]bool)
		there := slices.Clone(p.claims)
		for _, v := range p.spec.Volumes {
			if slices.Contains(there, v.Name) {
				wrong.add("%s: two volumes %s", p.of, v.Name)
			}
			there = append(there, v.Name)
		}
		for _, c := range p.containers() {
			var paths []string
			for _, m := range c.VolumeMounts {
				used[m.Name] = true
				if !slices.Contains(there, m.Name) {
					wrong.add("%s: %s mounts %s, which is no volume", p.of, c.Name, m.Name)
				}
				if !path.IsAbs(m.MountPath) || slices.Contains(paths, m.MountPath) {
					wrong.add("%s: %s mounts two volumes at %s, or it is no absolute path", p.of, c.Name, m.MountPath)
				}
				paths = append(paths, m.MountPath)
			}
		}
		for _, name := range there {
			if !used[name] {
				wrong.add("%s: nobody mounts %s", p.of, name)
			}
		}
	}
	return wrong
}

// shared: a path in a push is the daemon's, so directories of the host that writers
// and daemons share are everywhere where the host has them; and whoever has that of
// the socket is in the socket's group.
func shared(r rendered) (wrong complaints) {
	asked, _ := r.values.PathValue("node.socketGroup")
	for _, p := range r.pods {
		for _, v := range p.spec.Volumes {
			if v.HostPath == nil || v.Name != "s3daemon-socket" && !strings.HasPrefix(v.Name, "s3daemon-data-") {
				continue
			}
			for _, c := range p.containers() {
				for _, m := range c.VolumeMounts {
					if m.Name == v.Name && m.MountPath != v.HostPath.Path {
						wrong.add("%s: %s has %s of the host at %s", p.of, c.Name, v.HostPath.Path, m.MountPath)
					}
				}
			}
			context := p.spec.SecurityContext
			if v.Name == "s3daemon-socket" && (context == nil || !slices.Contains(context.SupplementalGroups, number(asked))) {
				wrong.add("%s has the socket's directory, and is not in its group", p.of)
			}
		}
	}
	return wrong
}

// renewed: the kubelet renews no file that is mounted by its own path.
func renewed(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		for _, c := range p.containers() {
			for _, m := range c.VolumeMounts {
				i := slices.IndexFunc(p.spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
				if i < 0 || p.spec.Volumes[i].Secret == nil && p.spec.Volumes[i].ConfigMap == nil {
					continue
				}
				if m.SubPath != "" || m.SubPathExpr != "" || !m.ReadOnly {
					wrong.add("%s: %s mounts a part of %s, or may write to it", p.of, c.Name, m.Name)
				}
			}
		}
	}
	return wrong
}

// known are the variables of the daemon and of send, as their sources have them.
var known = func() map[string]bool {
	names := make(map[string]bool)
	for _, pattern := range []string{"../../config.go", "../../send/*.go", "../../send/*/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			panic("there is no " + pattern)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				panic(err)
			}
			for _, m := range regexp.MustCompile(`"((?:S3DAEMON|S3|AWS)_[A-Z0-9_]+)"`).FindAllStringSubmatch(string(text), -1) {
				names[m[1]] = true
			}
		}
	}
	return names
}()

// sdks are those of the AWS SDK that the chart sets.
var sdks = []string{"AWS_REGION", "AWS_CA_BUNDLE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}

func variables(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		for _, c := range p.containers() {
			seen := make(map[string]bool)
			for _, v := range c.Env {
				if seen[v.Name] {
					wrong.add("%s: %s has %s twice", p.of, c.Name, v.Name)
				}
				seen[v.Name] = true
				ours := regexp.MustCompile(`^(S3DAEMON|S3|AWS)_`).MatchString(v.Name)
				if ours && !known[v.Name] && !slices.Contains(sdks, v.Name) {
					wrong.add("%s: %s has %s, which nothing reads", p.of, c.Name, v.Name)
				}
				if v.Value == "" && v.ValueFrom == nil {
					wrong.add("%s: %s has %s, but no value", p.of, c.Name, v.Name)
				}
			}
		}
	}
	return wrong
}

// reachable: what a variable names is in a volume that this container has.
func reachable(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		for _, c := range p.containers() {
			for name, value := range env(c) {
				if !strings.HasSuffix(name, "_FILE") && !slices.Contains([]string{"AWS_CA_BUNDLE", "S3DAEMON_DATA_DIR", "S3DAEMON_ROOTS", "S3DAEMON_LISTEN", "S3DAEMON_URL"}, name) {
					continue
				}
				for value := range strings.SplitSeq(value, ",") {
					file := strings.TrimPrefix(value, "unix:")
					isMounted := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
						below, is := strings.CutPrefix(file, strings.TrimSuffix(m.MountPath, "/")+"/")
						return file == m.MountPath || is && p.mayHave(m.Name, below)
					})
					if path.IsAbs(file) && !isMounted {
						wrong.add("%s: %s has no volume for %s=%s", p.of, c.Name, name, value)
					}
				}
			}
		}
	}
	return wrong
}

// mayHave tells whether a file can be in the volume: one of a Secret or a ConfigMap
// has those that are named.
func (p pod) mayHave(volume, file string) bool {
	for _, v := range p.spec.Volumes {
		var items []corev1.KeyToPath
		switch {
		case v.Name != volume:
			continue
		case v.Secret != nil:
			items = v.Secret.Items
		case v.ConfigMap != nil:
			items = v.ConfigMap.Items
		default:
			return true
		}
		return slices.ContainsFunc(items, func(i corev1.KeyToPath) bool { return i.Path == file })
	}
	return true
}

// agreed: send asks where the daemon listens, and the daemon of a pod reads the
// files of the others where these have them, but cannot write there. Nor can
// others write where the socket is.
func agreed(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		for _, c := range p.containers() {
			socket, isSocket := strings.CutPrefix(env(c)["S3DAEMON_URL"], "unix:")
			for _, m := range c.VolumeMounts {
				if isSocket && m.MountPath == path.Dir(socket) && !m.ReadOnly {
					wrong.add("%s: %s may put another socket in the place of %s", p.of, c.Name, socket)
				}
			}
		}
		i := slices.IndexFunc(p.containers(), func(c corev1.Container) bool { return c.Name == "s3daemon" })
		if i < 0 {
			continue
		}
		daemon := p.containers()[i]
		for _, c := range p.containers() {
			if url := env(c)["S3DAEMON_URL"]; url != "" && strings.TrimPrefix(url, "http://") != env(daemon)["S3DAEMON_LISTEN"] {
				wrong.add("%s: %s asks at %s, and the daemon listens on %s", p.of, c.Name, url, env(daemon)["S3DAEMON_LISTEN"])
			}
		}
		if listen := env(daemon)["S3DAEMON_LISTEN"]; !strings.HasPrefix(listen, "127.0.0.1:") && !strings.HasPrefix(listen, "unix:/") {
			wrong.add("%s: the daemon takes pushes at %s", p.of, listen)
		}
		for _, port := range daemon.Ports {
			if ops := env(daemon)["S3DAEMON_OPS_LISTEN"]; ops != fmt.Sprintf(":%d", port.ContainerPort) {
				wrong.add("%s: %s is %d, and health and metrics are at %q", p.of, port.Name, port.ContainerPort, ops)
			}
		}
		for root := range strings.SplitSeq(env(daemon)["S3DAEMON_ROOTS"], ",") {
			for _, m := range daemon.VolumeMounts {
				if m.MountPath == root && !m.ReadOnly {
					wrong.add("%s: the daemon may write to %s", p.of, root)
				}
			}
		}
	}
	return wrong
}
