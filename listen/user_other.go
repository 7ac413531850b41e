//go:build !linux && !darwin

package listen

import "errors"

// TellsUsers reports whether this system tells User who connected.
const TellsUsers = false

func peer(int) (uint32, error) { return 0, errors.ErrUnsupported }
