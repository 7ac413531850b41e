// Command s3daemon takes files from programs on the same host and delivers
// them to S3 objects over connections that it keeps open.
//
//	s3daemon               serve, configured by the environment
//	s3daemon demo [-once]  try everything on an embedded store; -trouble: on a slow one that fails
//	s3daemon healthcheck   exit 0 if the daemon that the environment describes is alive; ready: if it takes pushes
//	s3daemon sleep 30s     wait: for preStop hooks
//	s3daemon prepare       make directories and give them to a user: for init containers
//	s3daemon -help         list the variables
//	s3daemon -version
//
// The exit status is 0 after SIGTERM or SIGINT, when all that was accepted has
// ended or stays in the journal; 1 if the daemon failed, or was to deliver its
// queue first and could not; and 2 if the configuration or the command line is
// wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/lsst-dm/s3daemon/throttle"
)

// version is set when a release is built (-ldflags "-X main.version=...").
var version = "dev"

func main() {
	signal.Ignore(syscall.SIGPIPE) // a log that nobody reads any more must not end pushes
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, restore) // a second signal ends the process at once
	stderr := os.Stderr
	keepProgramsQuiet()
	err := run(ctx, os.Args[1:], os.Stdout, stderr)
	if err != nil {
		fmt.Fprintln(stderr, err)
	}
	os.Exit(exitStatus(err))
}

// keepProgramsQuiet takes os.Stderr away from the programs that the AWS SDK starts for
// credentials (credential_process), which it hands it to: what they write there would
// stand amid the lines of the log, and may be the secret. The log says that they wrote.
func keepProgramsQuiet() {
	r, w, err := os.Pipe()
	if err != nil {
		return // then they are heard
	}
	os.Stderr = w
	go func() {
		var lines throttle.Lines
		heard := make([]byte, 4096)
		for {
			n, err := r.Read(heard)
			if err != nil {
				return
			}
			if lines.Next(func(int) {}) {
				slog.Warn("a program of the AWS configuration (credential_process) wrote to standard error, which is not shown, since it may be secret: run it by hand as the daemon's user to see it", "bytes", n)
			}
		}
	}()
}

// usageError is a mistake of the one who starts the daemon.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func exitStatus(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		return 2
	}
	return 1
}

const help = `s3daemon delivers files of this host to S3 objects.

  s3daemon               serve, configured by the variables below
  s3daemon demo [-once]  try everything on an embedded store; -once exits after one push;
                         -trouble: files on and on to a slow store that fails, to look at
  s3daemon healthcheck [ready | HOST:PORT]
                         exit 0 if the daemon that the variables describe is alive, or
                         takes pushes; or if anything listens at that address
  s3daemon sleep DURATION
                         wait, at most until SIGTERM: for preStop hooks
  s3daemon prepare [-mode 0755] UID:GID DIR...
                         make directories where they are missing, and give them to that
                         user and group; of what is in them, if anything, the files that
                         were the user's to whom they were given before: for init containers
  s3daemon -help         this text
  s3daemon -version      the version

Variables (an empty one counts as not set):
`

// run is the whole program. It returns when the context has ended and
// everything is cleaned up.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "demo":
		return demo(ctx, args, stdout, stderr)
	case "healthcheck":
		return healthcheck(ctx, args)
	case "sleep":
		return sleep(ctx, args)
	case "prepare":
		return prepare(args)
	}
	if len(args) > 0 {
		return usageError{fmt.Errorf("s3daemon: too many arguments; s3daemon -help says what there is")}
	}
	switch command {
	case "":
		return daemon(ctx, stderr)
	case "-help", "--help", "-h", "help":
		fmt.Fprint(stdout, help)
		printVariables(stdout)
		return nil
	case "-version", "--version", "version":
		fmt.Fprintln(stdout, "s3daemon", version)
		return nil
	}
	return usageError{fmt.Errorf("s3daemon: %q is no command; s3daemon -help says what there is", command)}
}

// daemon reads the configuration and serves until the context ends.
func daemon(ctx context.Context, stderr io.Writer) error {
	cfg, warned, err := loadConfig()
	limit, mistake := newBandwidth(cfg)
	if err = errors.Join(err, mistake); err != nil {
		return usageError{fmt.Errorf("s3daemon cannot start with this configuration:\n%w", err)}
	}
	log, lines, err := openLog(cfg, stderr)
	if err != nil {
		return usageError{err}
	}
	defer lines.Close()
	// What net/http has to say of connections it says to the standard logger,
	// whose lines must be lines of our log.
	slog.SetLogLoggerLevel(slog.LevelDebug)
	slog.SetDefault(log)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer func() {
		signal.Stop(hangups)
		close(hangups)
	}()
	go func() {
		for range hangups {
			lines.Reopen()
			limit.reread(log)
		}
	}()
	log.Info(logStarting, "version", version)
	for _, w := range warned {
		log.Warn(w)
	}
	tuneMemory(cfg.queueLimit)
	return serve(ctx, cfg, limit.Bandwidth, log, func([]string) {})
}
