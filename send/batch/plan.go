package batch

import (
	"errors"
	"fmt"
	"strings"

	"github.com/lsst-dm/s3daemon/push"
)

// Item is one file of a batch and where it goes.
type Item struct {
	Index       int    // in the batch
	Name        string // as the user wrote it, for messages
	File        string // the absolute path
	Destination string
}

// ItemError says of which file something is wrong.
type ItemError struct {
	Name string // as the user wrote it
	Err  error
}

// Error says what.
func (e *ItemError) Error() string { return push.Quote(e.Name) + ": " + e.Err.Error() }

// Unwrap returns what is wrong.
func (e *ItemError) Unwrap() error { return e.Err }

// Plan says where each file goes: below the destination where that ends in a
// slash, under its base name; otherwise to the destination, where there is only
// one. It refuses the whole batch if one of them can go nowhere, or two would
// go to the same object. absolute makes a path absolute. The error is an
// *ItemError where a file gives its object a name that none can have.
func Plan(names []string, destination string, absolute func(string) (string, error)) ([]Item, error) {
	below := strings.HasSuffix(destination, "/")
	if len(names) > 1 && !below {
		return nil, fmt.Errorf(`DEST is %s: for several FILEs it must end in "/"`, push.Quote(destination))
	}
	items := make([]Item, len(names))
	taken := make(map[string]string, len(names)) // who goes to a destination
	for i, name := range names {
		file, err := absolute(name)
		if err != nil {
			return nil, err
		}
		to := destination
		if below {
			base, err := baseName(name)
			if err != nil {
				return nil, err
			}
			to += base
		}
		if other, both := taken[to]; both {
			return nil, fmt.Errorf("%s and %s would both become %s", push.Quote(other), push.Quote(name), push.Quote(to))
		}
		switch _, err := push.ParseDestination(to); {
		case err != nil && below:
			return nil, &ItemError{Name: name, Err: err}
		case err != nil: // all of it is DEST
			return nil, err
		}
		taken[to] = name
		items[i] = Item{Index: i, Name: name, File: file, Destination: to}
	}
	return items, nil
}

// baseName is the last name of a path.
func baseName(name string) (string, error) {
	trimmed := strings.TrimRight(name, "/")
	base := trimmed[strings.LastIndexByte(trimmed, '/')+1:]
	switch base {
	case "", ".", "..":
		return "", errors.New("no object can be named after the FILE " + push.Quote(name))
	}
	return base, nil
}
