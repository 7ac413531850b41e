// Package journal keeps accepted pushes on disk, and the multipart uploads that
// were begun for them. It knows nothing of S3, of
// HTTP, or of who goes next.
//
//	j, err := journal.Open(ctx, journal.Config{Dir: "/var/lib/s3daemon", HistoryAge: 72 * time.Hour, HistoryCount: 100_000})
//	j.Queued(takeUp)                             // what an earlier run has left
//	j.Accept(&r, func(err error) { answer(err) }) // accepted once err is nil
//	j.End(&r, func() { tell(r) })                 // done, failed or cancelled once it is called
//	j.Close()
//
// # The life of a push
//
//	          Accept             End
//	(nothing) ──────▶ in queue ──────▶ in history ──────▶ (nothing)
//	                     ▲                 │       prune
//	                     └─────────────────┘
//	                           Requeue
//
// In the queue the state of a push is queued, also while it is delivered; in
// the history it is done, failed or cancelled. A push that was running when the
// process ended is queued at the next start.
//
// # The life of an upload
//
// A multipart upload is put here before the store is asked for it (PutUpload),
// again once the store has given it an id, and once more before it is completed;
// each of its parts when the store has it (PutPart). DropUpload takes it out with
// all its parts. It needs no push: that of an upload may have ended, or be gone
// from the history.
//
// # What holds
//
// A change is on disk when its done is called, and not before: it then survives
// kill -9, and the loss of power as far as the disk keeps what it has synced.
// Until then nobody may be told of it. Changes are made in the order in which
// they are submitted, and a transaction holds whole changes: no push is in both
// buckets, or in none.
//
// One goroutine writes. It takes all that waits, makes one transaction of it,
// and calls the dones; meanwhile the next batch gathers. So the price of a
// transaction, two syncs, is shared by all who ask at the same time. A journal
// that nothing is asked of writes nothing.
//
// When a transaction cannot be written (the disk is full, say), the accepts and
// requeues in it fail, ends and all changes of uploads are kept in memory, in
// their order, and the next transaction is tried by itself after a while, or
// with the next change. If the last sync of a transaction has failed, it may be
// on disk although its accepts were refused; these are taken out again by the
// next transaction, before anything else. Only if the process ends between the
// two can a push be found in the queue that was refused.
//
// # The file
//
// The file is journal.db, a database of go.etcd.io/bbolt. It is made as
// journal.db.new and gets its name once it is whole and synced; the directory is
// synced before Open returns. A lock on it (flock) keeps other processes out.
//
// It has six buckets:
//
//	queue    id (16 bytes) → record
//	history  id (16 bytes) → record
//	keys     idempotency key → sum (4), id (16), hash of the request (32)
//	uploads  id (16), begun at (8) → upload
//	parts    id (16), begun at (8), number (4) → part
//	meta     "version" → sum (4), number (8)
//	         "totals"  → sum (4), newest id (8), pushes in queue (8), in history (8), keys (8), sum of sums (8),
//	                     uploads (8), parts (8)
//
// Numbers are big-endian. A sum is the CRC-32C of what follows it and of the
// key. totals are written with each transaction: the newest id is what the
// next one must come after (the milliseconds and the order of an id as one
// number of 60 bits), and the rest is compared when the file is opened.
//
// A record, an upload and a part are each a sum, and then fields as Protocol Buffers write them (number,
// type, value), in the order of their numbers. A field with a zero value is
// left out. Those of a record:
//
//	 1 state             varint   1 queued, 2 done, 3 failed, 4 cancelled
//	 2 destination       bytes    s3://bucket/key
//	 3 label             bytes
//	 4 file              bytes    the path, in whatever encoding
//	 5 content type      bytes
//	 6 metadata          message  one for each: 1 name, 2 value
//	 7 tags              message  likewise
//	 8 storage class     bytes
//	 9 size              varint
//	10 mtime, seconds    zigzag
//	11 mtime, the rest   varint   nanoseconds
//	12 device            varint
//	13 inode             varint
//	14 accepted at       fixed64  nanoseconds since 1970, as all that follow
//	15 retried at        fixed64
//	16 idempotency key   bytes
//	17 hash of request   bytes    32
//	18 started at        fixed64
//	19 finished at       fixed64
//	20 attempts          varint
//	21 parts             varint
//	22 ETag              bytes
//	23 version id        bytes
//	24 checksum          bytes    the algorithm
//	25 checksum          bytes    the value
//	26 problem           bytes    the code; there even if empty where there is a problem
//	27 problem           bytes    the detail
//	28 store's answer    varint   the HTTP status; there even if 0 where there is an answer
//	29 store's answer    bytes    the code
//	30 store's answer    bytes    the message
//	31 store's answer    bytes    the request id
//	32 encryption        bytes    that the store is asked for
//	33 encryption        bytes    the id of the KMS key
//	34 verified          bytes    what: object or parts
//	35 verified          bytes    the algorithm
//	36 verified          bytes    by whom: daemon or store
//	37 verified          bytes    the value
//	38 create only       varint   1 where an object that exists must stay
//	39 spent connecting  varint   nanoseconds, as the next two; there even if 0 once the push has ended
//	40 spent sending     varint
//	41 spent in store    varint   by the store, on its answers
//	42 traceparent       bytes    the header of the request
//	43 failed attempts   message  one for each, oldest first: 1 when (fixed64), 2 seconds (double, there even if 0),
//	                              3 operation, 4 part (varint), 5 reason, 6 detail
//
// Those of an upload:
//
//	 1 store             bytes
//	 2 bucket            bytes
//	 3 key               bytes    of the object
//	 4 id                bytes    the store's
//	 5 checksum          bytes    the setting
//	 6 part size         varint
//	 7 size              varint   of the file, as all to the inode
//	 8 mtime, seconds    zigzag
//	 9 mtime, the rest   varint   nanoseconds
//	10 device            varint
//	11 inode             varint
//	12 completed at      fixed64
//	13 probe             varint   1
//	14 ctime, seconds    zigzag   of the file
//	15 ctime, the rest   varint   nanoseconds
//
// Those of a part:
//
//	1 size              varint
//	2 ETag              bytes
//	3 CRC-64/NVME       fixed64
//	4 MD5               bytes    16
//	5 SHA-256           bytes    32
//	6 verified          bytes    the algorithm
//	7 verified          bytes    by whom: daemon or store
//	8 CRC-64/NVME       varint   1 where the store told it
//
// # Versions
//
// The version in the file is that of the format, now 2. Format 1 has no uploads,
// no parts, no field 38, and totals that end with the sum of sums. An s3daemon
// opens files of its own version and of all before, which it brings up to its
// own in one transaction. It refuses a later one and leaves it as it is; so after
// a downgrade across versions, start the later s3daemon once more with
// S3DAEMON_DRAIN=queue, or use another directory.
//
// A new field needs no new version if an earlier s3daemon does right to ignore
// it: that reads the record, and drops the field when it writes that anew, as
// when the push ends. All else needs one: a field that must not be lost, another
// meaning, or another bucket.
//
// # A file that cannot be read
//
// Before bbolt gets to see the file, Open reads all of it: each page in use must
// be where it should be, laid out as bbolt does it, used once, with keys in
// order; each sum must be right; and all must amount to the totals. So damage is
// found at the start, and not by a crash, or by pushes that are missing. Such a
// file is renamed to journal.db.unreadable-TIME, never deleted, and a new one is
// begun. What the system refuses (permissions, a full disk, an input error) is
// an error, and nothing is renamed.
//
// One case is let through: if only one of the two pages that bbolt starts from
// is damaged, the other is used, and the log says that the last transaction may
// be missing. To lose one is better than to lose all.
package journal
