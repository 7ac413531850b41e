package listen

import "golang.org/x/sys/unix"

// TellsUsers reports whether this system tells User who connected.
const TellsUsers = true

func peer(fd int) (uint32, error) {
	credentials, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return credentials.Uid, nil
}
