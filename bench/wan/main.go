//go:build linux

// Wan measures how near to the limit of a long link the daemon comes, and
// whatever else a user pushes with.
//
//	make bench-wan                               # some four minutes
//	make bench-wan-full                          # the table, some fifty minutes
//	go run ./bench/wan -run 200ms/single -n 3    # some cases
//	go run ./bench/wan -peer 'aws s3 cp --endpoint-url {endpoint} {file} s3://{bucket}/{key}'
//
// The link is emulated between two network namespaces; the store on its far
// side is a versitygw. README.md says what the cases are and how to read the
// table. It needs Linux, root, and the source tree for the working directory
// where it is not given the binaries.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(usageError)):
		os.Exit(2) // said already
	default:
		fmt.Fprintln(os.Stderr, "wan:", err)
		os.Exit(1)
	}
}

// options are what the flags say.
type options struct {
	full       bool
	rounds     int
	idle       time.Duration
	pattern    *regexp.Regexp // of the cases' ids; nil: those of a full or a quick run
	alone      bool           // without net/http where nothing is compared with it
	asJSON     bool
	check      bool
	verbose    bool
	daemon     string // binaries; built where empty
	against    string
	store      string
	peer       string
	peerDaemon string
}

// usageError is a mistake in the arguments, which the user was told of.
type usageError struct{ error }

// run is the program without its process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	cases := o.cases(allCases())
	if len(cases) == 0 {
		return errors.New("-run names no case")
	}
	r, err := o.bench(ctx, cases, stderr)
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
		return fmt.Errorf("bounds missed: %d", n)
	}
	return nil
}

// parse reads the flags.
func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("wan", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.full, "full", false, "all cases, with the idle time and the rounds of the table: some fifty minutes, else four")
	flags.IntVar(&o.rounds, "n", 0, "`rounds`: how often each case is timed (5 with -full, else 2)")
	flags.DurationVar(&o.idle, "idle", 0, "idle `time` before that (30s with -full, else 3s)")
	pattern := flags.String("run", "", "the cases that match this `regexp`, such as 200ms/single")
	flags.BoolVar(&o.alone, "alone", false, "leave net/http out where the daemon is not judged by it: much quicker")
	flags.BoolVar(&o.asJSON, "json", false, "print all times, as JSON")
	flags.BoolVar(&o.check, "check", false, "exit with 1 when a bound is missed")
	flags.BoolVar(&o.verbose, "v", false, "print what the daemon says of its connections after each push")
	flags.StringVar(&o.daemon, "daemon", "", "measure this daemon `binary`, not the one of this source tree")
	flags.StringVar(&o.against, "against", "", "measure this daemon `binary` too, in turns with the other")
	flags.StringVar(&o.store, "store", "", "the `binary` of e2e/versitygw; built where it is not given")
	flags.StringVar(&o.peer, "peer", "", "measure this shell `command` too, run for each file, with {file}, {bucket}, {key} and {endpoint} in it")
	flags.StringVar(&o.peerDaemon, "peer-daemon", "", "a shell `command`, with {endpoint} in it, that runs while -peer is measured")
	if err := flags.Parse(args); err != nil {
		return o, usageError{err}
	}
	if o.rounds == 0 {
		o.rounds = 2
		if o.full {
			o.rounds = 5
		}
	}
	if o.idle == 0 {
		o.idle = 3 * time.Second
		if o.full {
			o.idle = 30 * time.Second
		}
	}
	err := o.validate(flags.Args())
	if err == nil && *pattern != "" {
		o.pattern, err = regexp.Compile(*pattern)
	}
	if err != nil {
		fmt.Fprintln(stderr, "wan:", err)
		return o, usageError{err}
	}
	return o, nil
}

// validate reports the first thing wrong with the options.
func (o options) validate(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("there are no arguments but flags, so what is %q?", rest[0])
	case o.rounds < 1:
		return errors.New("-n must be at least 1")
	case o.idle < 0:
		return errors.New("-idle must not be negative")
	case o.peerDaemon != "" && o.peer == "":
		return errors.New("-peer-daemon is for a -peer that needs it")
	}
	return nil
}

// cases returns those of all that are to be run.
func (o options) cases(all []bench) []bench {
	return slices.DeleteFunc(all, func(b bench) bool {
		if o.pattern != nil {
			return !o.pattern.MatchString(b.id())
		}
		return b.Full && !o.full
	})
}

// contestants returns who is measured, ours first.
func (o options) contestants() []contestant {
	always := func(bench) bool { return true }
	daemonAt := func(path string) func(context.Context, bench, *bed) (pusher, error) {
		return func(ctx context.Context, b bench, on *bed) (pusher, error) {
			return startDaemon(ctx, path, on, on.link.Near, b.Fresh)
		}
	}
	all := []contestant{{name: "ours", open: daemonAt(o.daemon), path: o.daemon, in: always}}
	if o.against != "" {
		all = append(all, contestant{name: "before", open: daemonAt(o.against), path: o.against, in: always})
	}
	all = append(all, contestant{
		name: "net/http",
		open: func(_ context.Context, _ bench, on *bed) (pusher, error) { return newPlainPool(on) },
		in: func(b bench) bool {
			switch {
			case o.alone:
				return b.Of == netHTTP
			case o.pattern != nil:
				return b.Of != thePlain
			case o.full:
				return b.withNetHTTP()
			}
			return slices.Contains(netHTTPInQuick, b.id())
		},
	})
	if o.peer != "" {
		all = append(all, contestant{
			name: "peer",
			open: func(_ context.Context, _ bench, on *bed) (pusher, error) {
				return startCommand(on, o.peer, o.peerDaemon)
			},
			in: always,
		})
	}
	return all
}

// bench builds what is to be measured, and measures it.
func (o options) bench(ctx context.Context, cases []bench, progressTo io.Writer) (r *report, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can make network namespaces")
	}
	if err := needCongestionControls(); err != nil {
		return nil, err
	}
	changed, err := openRecord(recordPath, progressTo)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, changed.close()) }()
	busy, err := busyShare(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := changed.makeDir("/dev/shm") // in memory
	if err != nil {
		return nil, err
	}
	if err := o.build(ctx, dir); err != nil {
		return nil, err
	}
	// The daemon reads nothing under /dev. The pages of these files are in
	// memory as well, since they were just written.
	fileDir, err := changed.makeDir("")
	if err != nil {
		return nil, err
	}
	files, err := makeFiles(fileDir, cases)
	if err != nil {
		return nil, fmt.Errorf("make the files to push: %w", err)
	}
	c := contest{files: files, rounds: o.rounds, idle: o.idle, progress: o.newProgress(cases, progressTo), verbose: o.verbose}
	var jobs []*job
	for _, host := range hostsOf(cases) {
		now := slices.DeleteFunc(slices.Clone(cases), func(b bench) bool { return b.host() != host })
		if err := host.set(changed); err != nil {
			return nil, err
		}
		done, err := o.runOn(ctx, c, now, dir)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, done...)
	}
	r = newReport(o, cases, jobs)
	r.Busy = busy
	return r, nil
}

// newProgress returns the progress of a run of these cases.
func (o options) newProgress(cases []bench, out io.Writer) *progress {
	p := &progress{out: out, begin: time.Now()}
	for _, b := range cases {
		for _, who := range o.contestants() {
			if who.in(b) {
				p.total += o.rounds
			}
		}
	}
	return p
}

// hostsOf returns the settings of the host that the cases want.
func hostsOf(cases []bench) []hostVariables {
	var all []hostVariables
	for _, b := range cases {
		if !slices.Contains(all, b.host()) {
			all = append(all, b.host())
		}
	}
	return all
}

// runOn runs cases that want the same settings of the host, which it has.
func (o options) runOn(ctx context.Context, c contest, cases []bench, dir string) (jobs []*job, err error) {
	beds := map[bedKey]*bed{}
	defer func() {
		for _, j := range jobs {
			err = errors.Join(err, j.stop())
		}
		for _, b := range beds {
			err = errors.Join(err, b.close())
		}
	}()
	for _, b := range cases {
		on := beds[b.bed()]
		if on == nil {
			if on, err = newBed(ctx, b.bed(), o.store, filepath.Join(dir, fmt.Sprintf("bed-%d", len(beds)))); err != nil {
				return jobs, err
			}
			beds[b.bed()] = on
		}
		for _, who := range o.contestants() {
			if who.in(b) {
				jobs = append(jobs, &job{bench: b, who: who, bed: on})
			}
		}
	}
	return jobs, c.run(ctx, jobs)
}

// build builds the binaries that no flag names, from the module that the
// working directory is in.
func (o *options) build(ctx context.Context, dir string) error {
	if o.daemon != "" && o.store != "" {
		return nil
	}
	const module = "github.com/lsst-dm/s3daemon"
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return fmt.Errorf("there is no source tree to build from (%w): run it in that, or name -daemon and -store", err)
	}
	root := strings.TrimSpace(string(out))
	build := func(path *string, name, module, pkg string) error {
		if *path != "" {
			return nil
		}
		*path = filepath.Join(dir, name)
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", *path, pkg)
		cmd.Dir = module
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
		return nil
	}
	if err := build(&o.daemon, "s3daemon", root, "."); err != nil {
		return err
	}
	return build(&o.store, "versitygw", filepath.Join(root, "e2e"), "./versitygw")
}

// makeFiles writes a file of random bytes for each size, in memory.
func makeFiles(dir string, cases []bench) (map[int64]string, error) {
	random := rand.NewChaCha8([32]byte([]byte("the same bytes in each benchmark")))
	files := map[int64]string{}
	for _, b := range cases {
		for _, pushed := range append(slices.Clone(b.Before), b.Measured) {
			size := pushed.Size
			if files[size] != "" {
				continue
			}
			files[size] = filepath.Join(dir, fmt.Sprintf("file-%d", size))
			if err := makeFile(files[size], size, random); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

func makeFile(path string, size int64, random io.Reader) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, random, size)
	return errors.Join(err, f.Close())
}
