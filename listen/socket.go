package listen

import (
	"fmt"
	"io/fs"
	"net"
	"os"
)

// Socket says who may connect to a unix:/ address.
type Socket struct {
	Mode  fs.FileMode // permissions: who may connect has that to write
	Group int         // the group that they speak of; -1: the process's own
}

// open listens on a path. Nobody can connect to it who may not when all is
// done: until it has its group nobody may at all.
func (s Socket) open(path string) (net.Listener, error) {
	l, err := bindShut(path)
	if err != nil {
		return nil, err
	}
	if err := s.apply(path); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (s Socket) apply(path string) error {
	if s.Group != -1 {
		if err := os.Lchown(path, -1, s.Group); err != nil {
			return fmt.Errorf("give it to the group %d, which the process's user must be in: %w", s.Group, err)
		}
	}
	return os.Chmod(path, s.Mode)
}
