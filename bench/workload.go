//go:build linux

package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// A workload is a number of pushes of files of one size.
type workload struct {
	Name    string `json:"name"`
	Pushes  int    `json:"pushes"`
	Callers int    `json:"callers"` // pushes under way at one time
	Size    int64  `json:"size"`    // of a file, in bytes
	Files   int    `json:"files"`   // different files; pushes take them in turn

	PerSecond int `json:"per_second,omitempty"` // pushes begun in a second; as many as there can be where 0

	Checksum string `json:"checksum,omitempty"` // the daemon's S3DAEMON_CHECKSUM; its default where empty
	Silent   bool   `json:"silent,omitempty"`   // the store has never heard of CRC64NVME
}

// destination names the object of push i. No two pushes of a run share one,
// because pushes to one key wait for each other.
func (w workload) destination(i int) (bucket, key string) {
	return "bench", fmt.Sprintf("%s/%06d", w.Name, i)
}

// makeFiles writes the files of a workload, of random bytes, and reads them
// once, so that the runs measure neither the disk nor the writing back of
// pages.
func makeFiles(dir string, w workload) ([]string, error) {
	random := rand.NewChaCha8([32]byte([]byte("the same bytes in each benchmark")))
	files := make([]string, w.Files)
	for i := range files {
		files[i] = filepath.Join(dir, fmt.Sprintf("%s-%03d", w.Name, i))
		if err := makeFile(files[i], w.Size, random); err != nil {
			return nil, fmt.Errorf("make the files to push: %w", err)
		}
	}
	return files, nil
}

func makeFile(path string, size int64, random io.Reader) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(f, random, size); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.NewSectionReader(f, 0, size))
	return err
}
