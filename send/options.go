package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// maxParallel bounds -j: each push has a connection of its own.
const maxParallel = 1000

// options is a command line with flags.
type options struct {
	async, json, progress bool
	createOnly            bool
	label                 string
	parallel              int

	wait    string // the label to wait for; then there are no files
	timeout time.Duration

	files       []string
	destination string

	patience time.Duration // with the daemon; not of the command line
}

// parseOptions reads the arguments. Its error is flag.ErrHelp where they ask for
// help.
func parseOptions(args []string) (options, error) {
	var o options
	set := flag.NewFlagSet("send", flag.ContinueOnError)
	set.SetOutput(io.Discard) // the caller shows the error
	set.BoolVar(&o.async, "async", false, "")
	set.BoolVar(&o.json, "json", false, "")
	set.BoolVar(&o.progress, "progress", false, "")
	set.BoolVar(&o.createOnly, "no-overwrite", false, "")
	set.StringVar(&o.label, "label", "", "")
	set.IntVar(&o.parallel, "j", 25, "")
	set.StringVar(&o.wait, "wait", "", "")
	set.DurationVar(&o.timeout, "timeout", 0, "")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	given := make(map[string]bool)
	set.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if given["wait"] {
		return o, o.checkWait(given, set.Args())
	}
	return o, o.checkPush(given, set.Args())
}

// checkWait checks the command line of the barrier.
func (o *options) checkWait(given map[string]bool, args []string) error {
	for name := range given {
		if name != "wait" && name != "timeout" {
			return fmt.Errorf("-%s does not go with -wait", name)
		}
	}
	switch {
	case o.wait == "":
		return errors.New("the LABEL of -wait is empty")
	case len(args) > 0:
		return fmt.Errorf("-wait takes no FILE: what is %s?", push.Quote(args[0]))
	case o.timeout < 0:
		return fmt.Errorf("-timeout is %v, which is over before it began", o.timeout)
	}
	return nil
}

// checkPush checks the command line of a batch, and takes its files from args.
func (o *options) checkPush(given map[string]bool, args []string) error {
	switch {
	case given["timeout"]:
		return errors.New("-timeout goes with -wait only")
	case o.parallel < 1 || o.parallel > maxParallel:
		return fmt.Errorf("-j is %d, which is not a number from 1 to %d", o.parallel, maxParallel)
	case o.async && o.progress:
		return errors.New("-async does not wait for the progress that -progress shows")
	case len(args) == 0:
		return errors.New("FILE and DEST are missing")
	case len(args) == 1:
		return fmt.Errorf("DEST is missing after the FILE %s", push.Quote(args[0]))
	}
	o.files, o.destination = args[:len(args)-1], args[len(args)-1]
	return nil
}
