package uploader

// Sizes of requests. S3 allows 10,000 parts of 5 MiB to 5 GiB, the last one
// smaller. A file that is sent as a whole saves the two round trips that a
// multipart upload costs, and an instrument's usual one is (18 MB). Of a larger
// one, parts that are under way when the daemon is killed or the link breaks are
// sent again: so they are small, though no more than are a small share of the
// file. Beyond that many some stores on disks cannot note them all, as versitygw
// on ext4 from some 300 on.
const (
	wholeSize   = 32 << 20
	minPartSize = 8 << 20
	midPartSize = 32 << 20 // that parts grow to before there are more of them
	fewParts    = 256      // up to that size
	maxParts    = 10_000
	partUnit    = 1 << 20
)

// plan is how files are cut into parts.
type plan struct {
	whole   int64 // the largest file that one PutObject carries, in bytes
	minPart int64 // smallest part size in bytes, a whole number of MiB
}

// partSize returns the size of each part but the last for a file of that many
// bytes that goes in parts: the smallest whole number of MiB, from the minimum
// up, that needs at most 256 parts, or 10,000 where they would be larger than 32
// MiB.
func (p plan) partSize(size int64) int64 {
	least := max(ceil(size, maxParts), min(ceil(size, fewParts), midPartSize))
	return max(p.minPart, ceil(least, partUnit)*partUnit)
}

// ceil returns n/d, rounded up.
func ceil(n, d int64) int64 { return (n + d - 1) / d }

// parts returns how many requests carry a file of that many bytes; an empty
// file needs one too.
func (p plan) parts(size int64) int {
	if size <= p.whole {
		return 1
	}
	return partsOf(size, p.partSize(size))
}

// partsOf returns how many parts of that size make a file.
func partsOf(size, partSize int64) int { return int(max(1, ceil(size, partSize))) }
