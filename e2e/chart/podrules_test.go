package chart

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

var standard = func() policy.Evaluator {
	e, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		panic(err)
	}
	return e
}()

// restricted holds for all pods, where volumes of the host and the container that
// prepares them as root are looked past.
func restricted(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		spec := p.spec.DeepCopy()
		onHost := slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil })
		spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil })
		if onHost {
			spec.InitContainers = slices.DeleteFunc(spec.InitContainers, func(c corev1.Container) bool { return c.Name == "s3daemon-prepare" })
		}
		level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
		for _, result := range standard.EvaluatePod(level, &p.meta, spec) {
			if !result.Allowed {
				wrong.add("%s: %s (%s)", p.of, result.ForbiddenReason, result.ForbiddenDetail)
			}
		}
		for _, c := range p.containers() {
			if c.SecurityContext == nil || c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
				wrong.add("%s: %s may write to its image", p.of, c.Name)
			}
		}
	}
	return wrong
}

func frugal(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		if p.spec.EnableServiceLinks == nil || *p.spec.EnableServiceLinks {
			wrong.add("%s: enableServiceLinks is not false: variables of other Services would be there", p.of)
		}
		asked, _ := r.values.PathValue("serviceAccount.automount")
		if p.spec.AutomountServiceAccountToken == nil || *p.spec.AutomountServiceAccountToken != (asked == true) {
			wrong.add("%s: automountServiceAccountToken is not what was asked for", p.of)
		}
		for _, c := range p.containers() {
			if !regexp.MustCompile(`@sha256:[0-9a-f]{64}$|:[\w][\w.-]*$`).MatchString(c.Image) || strings.HasSuffix(c.Image, ":latest") {
				wrong.add("%s: %s runs %q, whatever that is today", p.of, c.Name, c.Image)
			}
		}
	}
	return wrong
}

// graceful: the daemon has its time to drain, after the writer has had its own, and
// the next one waits for as long.
func graceful(r rendered) (wrong complaints) {
	asked, _ := r.values.PathValue("sidecar.writerGraceSeconds")
	writer := time.Duration(number(asked)) * time.Second
	for _, p := range r.pods {
		legacy := false
		isSidecar := len(p.spec.Containers) > 1 || p.spec.Containers[0].Name != "s3daemon"
		for _, c := range p.containers() {
			if c.Name == "s3daemon-legacy" {
				legacy = true
			}
			if c.Name == "s3daemon" && legacy {
				wrong.add("%s: the old port starts before the daemon that it needs, and ends after it", p.of)
			}
			if isSidecar && (c.Name == "s3daemon" || c.Name == "s3daemon-legacy") {
				wrong = append(wrong, outlives(p, c, writer)...)
			}
			if c.Name != "s3daemon" {
				continue
			}
			drain, err := time.ParseDuration(env(c)["S3DAEMON_DRAIN_TIMEOUT"])
			if err != nil {
				wrong.add("%s: S3DAEMON_DRAIN_TIMEOUT: %v", p.of, err)
			}
			needed := drain + 5*time.Second
			if isSidecar {
				needed += writer
			}
			grace := time.Duration(valueOf(p.spec.TerminationGracePeriodSeconds, 30)) * time.Second
			if grace < needed {
				wrong.add("%s: a grace period of %v, where %v are needed", p.of, grace, needed)
			}
			if wait, err := time.ParseDuration(env(c)["S3DAEMON_JOURNAL_WAIT"]); err != nil || wait <= grace {
				wrong.add("%s: the next daemon waits for the journal for %v, and this one may take %v to end", p.of, wait, grace)
			}
		}
	}
	return wrong
}

// outlives: a sidecar goes on until the writer has ended.
func outlives(p pod, sidecar corev1.Container, writer time.Duration) (wrong complaints) {
	isInit := slices.ContainsFunc(p.spec.InitContainers, func(c corev1.Container) bool { return c.Name == sidecar.Name })
	if isInit {
		if sidecar.RestartPolicy == nil || *sidecar.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			wrong.add("%s: %s is an init container that the writer waits for", p.of, sidecar.Name)
		}
		return wrong
	}
	if sidecar.RestartPolicy != nil {
		wrong.add("%s: %s has a restart policy, which an ordinary container must not", p.of, sidecar.Name)
	}
	want := []string{"/s3daemon", "sleep", fmt.Sprintf("%.0fs", writer.Seconds())}
	hook := sidecar.Lifecycle
	if hook == nil || hook.PreStop == nil || hook.PreStop.Exec == nil || !slices.Equal(hook.PreStop.Exec.Command, want) {
		wrong.add("%s: %s is told to end while the writer still writes: its preStop is not %q", p.of, sidecar.Name, want)
	}
	return wrong
}

// retried: a Job waits for pushes by a label that is made of its name. That of
// the pod is another when it is retried.
func retried(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		for _, c := range p.containers() {
			said := strings.Join(slices.Concat(c.Command, c.Args), " ")
			if !strings.HasPrefix(p.of, "Job/") || !strings.Contains(said, "-wait ") {
				continue
			}
			isJobs := slices.ContainsFunc(c.Env, func(v corev1.EnvVar) bool {
				return v.ValueFrom != nil && v.ValueFrom.FieldRef != nil && strings.Contains(said, "label=$"+v.Name+"$") &&
					v.ValueFrom.FieldRef.FieldPath == "metadata.labels['batch.kubernetes.io/job-name']"
			})
			if !isJobs || strings.Count(said, `"$label"`) != strings.Count(said, "-wait ")+strings.Count(said, "-label ") {
				wrong.add("%s: %s waits for pushes by a label that is not its Job's", p.of, c.Name)
			}
		}
	}
	return wrong
}

// probes: the daemon has all three; and a writer starts when what it pushes to
// listens, which a sidecar that is an init container has to tell.
func probes(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		for _, c := range p.containers() {
			var lines complaints
			switch {
			case c.Name == "s3daemon":
				lines = slices.Concat(probe(c, "startup", c.StartupProbe), probe(c, "readiness", c.ReadinessProbe), probe(c, "liveness", c.LivenessProbe))
			case c.Name == "s3daemon-legacy" && c.RestartPolicy != nil:
				want := []string{"/s3daemon", "healthcheck", c.Command[len(c.Command)-1]}
				if c.StartupProbe == nil || c.StartupProbe.Exec == nil || !slices.Equal(c.StartupProbe.Exec.Command, want) {
					lines.add("the startup probe of %s does not run %q", c.Name, want)
				}
			}
			for _, line := range lines {
				wrong.add("%s: %s", p.of, line)
			}
		}
	}
	return wrong
}

// probe asks for readiness or for health, as its kind says, where the daemon
// answers.
func probe(c corev1.Container, kind string, p *corev1.Probe) (wrong complaints) {
	if p == nil {
		wrong.add("there is no %s probe", kind)
		return wrong
	}
	ready := kind == "readiness"
	switch {
	case p.Exec != nil:
		want := []string{"/s3daemon", "healthcheck"}
		if ready {
			want = append(want, "ready")
		}
		if !slices.Equal(p.Exec.Command, want) {
			wrong.add("the %s probe runs %q", kind, p.Exec.Command)
		}
		if valueOf(&p.TimeoutSeconds, 1) < 2 {
			wrong.add("the %s probe has a second, in which a process may not have begun", kind)
		}
	case p.HTTPGet != nil:
		want := "/healthz"
		if ready {
			want = "/readyz"
		}
		open := slices.ContainsFunc(c.Ports, func(port corev1.ContainerPort) bool {
			return port.Name == p.HTTPGet.Port.String() && env(c)["S3DAEMON_OPS_LISTEN"] == fmt.Sprintf(":%d", port.ContainerPort)
		})
		if p.HTTPGet.Path != want || !open {
			wrong.add("the %s probe asks for %s at %s", kind, p.HTTPGet.Path, p.HTTPGet.Port.String())
		}
	default:
		wrong.add("the %s probe asks for nothing", kind)
	}
	return wrong
}

// resources: each container says what it takes of the node, and may take what
// processor there is.
func resources(r rendered) (wrong complaints) {
	for _, p := range r.pods {
		for _, c := range p.containers() {
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				if c.Resources.Requests.Name(name, "").IsZero() {
					wrong.add("%s: %s requests no %s", p.of, c.Name, name)
				}
			}
			if c.Resources.Limits.Memory().IsZero() || c.Resources.Limits.Memory().Cmp(*c.Resources.Requests.Memory()) < 0 {
				wrong.add("%s: %s has no limit of memory, or one beneath what it requests", p.of, c.Name)
			}
			if !c.Resources.Limits.Cpu().IsZero() {
				wrong.add("%s: %s has a limit of CPU, by which it would stand still", p.of, c.Name)
			}
		}
	}
	return wrong
}
