//go:build linux

// Bench measures what a push costs: how many there are in a second, how long
// each takes, and what of it is the daemon's CPU time and memory.
//
//	go run ./bench              # the whole of it, some seven minutes
//	go run ./bench -quick       # seconds: does it work?
//	go run ./bench -against /tmp/s3daemon-before
//
// Every part is a process of its own on this machine: the daemon, the store,
// and, for scale, one that puts the same files with net/http alone. The store
// throws away what it is sent. README.md says what the figures mean.
//
// It needs Linux: the CPU clock of another process, /proc, and MSG_TRUNC.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// The workloads.
const (
	small       = "small"
	large       = "large"
	largeMD5    = "large-md5"    // the same, with S3DAEMON_CHECKSUM=md5
	largeSilent = "large-silent" // the same, to a store that knows MD5 alone
	listener    = "listener"
	watched     = "watched" // small pushes, with somebody at the status page and without
)

var workloads = []string{small, large, largeMD5, largeSilent, listener, watched}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(usageError)):
		os.Exit(2) // said already
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are what the flags say.
type options struct {
	runs      int
	asJSON    bool
	check     bool
	workloads []string
	daemon    string // binaries; built where empty
	against   string
	send      string
	small     workload
	large     workload
	listeners []workload
	watched   []workload
	watchers  int
	pairs     int // of windows with watchers and without
}

// pushed are the workloads of pushes alone, in the order of their runs.
func (o options) pushed() []workload {
	md5, silent := o.large, o.large
	md5.Name, md5.Checksum = largeMD5, "md5"
	silent.Name, silent.Silent = largeSilent, true
	return []workload{o.small, o.large, md5, silent}
}

// usageError is a mistake in the arguments, which the user was told of.
type usageError struct{ error }

// run is the program without its process. Two first arguments that are in no
// help make it one of its own children.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	switch {
	case slices.Equal(args, []string{"store"}):
		return runStore(false, stdin, stdout)
	case slices.Equal(args, []string{"store", "silent"}):
		return runStore(true, stdin, stdout)
	case slices.Equal(args, []string{"bare"}):
		return runBare(ctx, stdin, stdout)
	}
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	r, err := o.bench(ctx, stderr)
	if err != nil {
		return err
	}
	return o.deliver(r, stdout)
}

// deliver prints the report, and is an error where the user wanted one.
func (o options) deliver(r *report, stdout io.Writer) error {
	if o.asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(r); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	} else {
		r.print(stdout)
	}
	if n := r.missed(); o.check && n > 0 {
		return fmt.Errorf("goals missed: %d", n)
	}
	return nil
}

// parse reads the flags.
func parse(args []string, stderr io.Writer) (options, error) {
	o := options{
		small: workload{Name: small, Pushes: 20_000, Callers: 25, Size: 1 << 10, Files: 256},
		large: workload{Name: large, Pushes: 30, Callers: 2, Size: 200_000_000, Files: 1},
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.runs, "n", 3, "runs of each workload")
	flags.BoolVar(&o.asJSON, "json", false, "print every run, as JSON")
	flags.BoolVar(&o.check, "check", false, "exit with 1 when a goal is missed")
	flags.StringVar(&o.daemon, "daemon", "", "measure this daemon `binary`, not the one of this source tree")
	flags.StringVar(&o.against, "against", "", "measure this daemon `binary` too, in turns with the other")
	flags.StringVar(&o.send, "send", "", "measure this send `binary`, not the one of this source tree")
	which := flags.String("workloads", strings.Join(workloads, ","), "what to run, separated by commas")
	flags.IntVar(&o.small.Pushes, "small-pushes", o.small.Pushes, "pushes of small files")
	flags.IntVar(&o.small.Callers, "small-callers", o.small.Callers, "callers with small files")
	flags.Int64Var(&o.small.Size, "small-size", o.small.Size, "`bytes` of a small file")
	flags.IntVar(&o.large.Pushes, "large-pushes", o.large.Pushes, "pushes of large files")
	flags.IntVar(&o.large.Callers, "large-callers", o.large.Callers, "callers with large files")
	flags.Int64Var(&o.large.Size, "large-size", o.large.Size, "`bytes` of a large file")
	listenerPushes := flags.Int("listener-pushes", 5000, "pushes through the listener")
	flags.IntVar(&o.watchers, "watchers", 1, "who look at the status page in the workload watched")
	flags.IntVar(&o.pairs, "pairs", 9, "pairs of runs of the workload watched")
	watchedPushes := flags.Int("watched-pushes", 10_000, "pushes of one run of the workload watched")
	perSecond := flags.Int("watched-rate", 1000, "pushes begun in a second in the workload watched")
	quick := flags.Bool("quick", false, "run everything once and briefly, to see that it works")
	if err := flags.Parse(args); err != nil {
		return o, usageError{err}
	}
	if *quick {
		o.runs, o.small.Pushes, *listenerPushes = 1, 1000, 500
		o.large.Pushes, o.large.Size = 4, 64_000_000
		o.pairs, *watchedPushes = 1, 500
	}
	o.workloads = strings.Split(*which, ",")
	for _, callers := range []int{1, o.small.Callers} {
		w := o.small
		w.Name, w.Pushes, w.Callers = listener, *listenerPushes, callers
		o.listeners = append(o.listeners, w)
	}
	for _, rate := range []int{*perSecond, 0} {
		w := o.small
		w.Name, w.Pushes, w.PerSecond = watched, *watchedPushes, rate
		o.watched = append(o.watched, w)
	}
	if err := o.validate(flags.Args()); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return o, usageError{err}
	}
	return o, nil
}

// validate reports the first thing wrong with the options.
func (o options) validate(rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("there are no arguments but flags, so what is %q?", rest[0])
	}
	for _, name := range o.workloads {
		if !slices.Contains(workloads, name) {
			return fmt.Errorf("-workloads has %q: it knows %s", name, strings.Join(workloads, ", "))
		}
	}
	if o.runs < 1 || o.pairs < 1 || o.watchers < 1 {
		return errors.New("-n, -pairs and -watchers must be at least 1")
	}
	for _, w := range slices.Concat(o.pushed(), o.listeners, o.watched) {
		if w.Pushes < 1 || w.Callers < 1 || w.Size < 1 || w.PerSecond < 0 {
			return fmt.Errorf("workload %s: pushes, callers and size must be at least 1, and no rate below 0", w.Name)
		}
	}
	return nil
}

// bench builds what is to be measured, and measures it.
func (o options) bench(ctx context.Context, progress io.Writer) (*report, error) {
	dir, err := os.MkdirTemp("", "s3daemon-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a temporary directory: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := o.build(ctx, dir); err != nil {
		return nil, err
	}
	r := &report{Go: runtime.Version(), CPUs: runtime.NumCPU(), Runs: o.runs}
	for _, w := range o.pushed() {
		if !slices.Contains(o.workloads, w.Name) {
			continue
		}
		wr, err := o.runWorkload(ctx, w, dir, progress)
		if err != nil {
			return nil, err
		}
		r.Workloads = append(r.Workloads, wr)
	}
	if slices.Contains(o.workloads, listener) {
		for _, w := range o.listeners {
			lr, err := o.runListener(ctx, w, dir, progress)
			if err != nil {
				return nil, err
			}
			r.Listener = append(r.Listener, lr)
		}
	}
	if slices.Contains(o.workloads, watched) {
		for _, w := range o.watched {
			wr, err := o.runWatched(ctx, w, dir, progress)
			if err != nil {
				return nil, err
			}
			r.Watched = append(r.Watched, wr)
		}
	}
	r.judge()
	return r, nil
}

// build builds the binaries that no flag names, from the module that the
// working directory is in.
func (o *options) build(ctx context.Context, dir string) error {
	build := func(name, pkg string) (string, error) {
		path := filepath.Join(dir, name)
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, pkg)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
		return path, nil
	}
	const module = "github.com/lsst-dm/s3daemon"
	var err error
	if o.daemon == "" {
		if o.daemon, err = build("s3daemon", module); err != nil {
			return err
		}
	}
	if o.send == "" && slices.Contains(o.workloads, listener) {
		o.send, err = build("send", module+"/send")
	}
	return err
}

// runWorkload measures the daemon, the other daemon and the bare PUT in turns.
func (o options) runWorkload(ctx context.Context, w workload, dir string, progress io.Writer) (workloadReport, error) {
	wr := workloadReport{workload: w}
	files, err := makeFiles(dir, w)
	if err != nil {
		return wr, err
	}
	for i := range o.runs {
		fmt.Fprintf(progress, "%s: run %d of %d\n", w.Name, i+1, o.runs)
		m, err := measureDaemon(ctx, o.daemon, w, files)
		if err != nil {
			return wr, err
		}
		wr.Daemon = append(wr.Daemon, m)
		if o.against != "" {
			if m, err = measureDaemon(ctx, o.against, w, files); err != nil {
				return wr, err
			}
			wr.Against = append(wr.Against, m)
		}
		if m, err = measureBare(ctx, w, files); err != nil {
			return wr, err
		}
		wr.Bare = append(wr.Bare, m)
	}
	wr.Ratio = ratioOf(wr.Daemon, wr.Bare)
	return wr, nil
}

// runListener compares the listener with direct pushes.
func (o options) runListener(ctx context.Context, w workload, dir string, progress io.Writer) (listenerReport, error) {
	lr := listenerReport{workload: w}
	files, err := makeFiles(dir, w)
	if err != nil {
		return lr, err
	}
	for i := range o.runs {
		fmt.Fprintf(progress, "%s at %d callers: run %d of %d\n", w.Name, w.Callers, i+1, o.runs)
		run, err := measureListener(ctx, o.daemon, o.send, w, files)
		if err != nil {
			return lr, err
		}
		lr.Runs = append(lr.Runs, run)
	}
	return lr, nil
}
