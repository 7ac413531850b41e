package uploader

// Sizes of parts. S3 allows 10,000 parts of 5 MiB to 5 GiB, the last one
// smaller. The smallest part of ours is large enough that an instrument's
// usual file (18 MB) is one PutObject, which saves the two round trips that a
// multipart upload costs, and small enough that sending one again is cheap.
const (
	minPartSize = 32 << 20
	maxParts    = 10_000
	partUnit    = 1 << 20
)

// plan is how files are cut into parts.
type plan struct {
	minPart int64 // smallest part size in bytes, a whole number of MiB
}

// partSize returns the size of each part but the last for a file of that many
// bytes: the smallest whole number of MiB, from the minimum up, that needs at
// most 10,000 parts. A file no larger than its part size is sent by one
// PutObject.
func (p plan) partSize(size int64) int64 {
	least := (size + maxParts - 1) / maxParts
	return max(p.minPart, (least+partUnit-1)/partUnit*partUnit)
}

// parts returns how many requests carry a file of that many bytes; an empty
// file needs one too.
func (p plan) parts(size int64) int {
	per := p.partSize(size)
	return int(max(1, (size+per-1)/per))
}
