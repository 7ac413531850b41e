//go:build !linux

package main

import (
	"errors"
	"fmt"
)

// giveDirectory needs what Linux alone has: a hold on a directory that nobody
// may read yet.
func giveDirectory(dir string, _ owner, _ int) error {
	return fmt.Errorf("give %s: %w", dir, errors.ErrUnsupported)
}
