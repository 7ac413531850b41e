# A file is written under another name, so that it is whole when it is pushed, and
# deleted when the store has it. What could not be pushed is pushed the next time.
trap 'exit 0' TERM
while true; do
  name=$(date -u +%Y%m%dT%H%M%SZ).txt
  date > "/data/$name.part" && mv "/data/$name.part" "/data/$name"
  for file in /data/*.txt; do
    send -label "$POD" "$file" "s3://$BUCKET/s3daemon-example/$POD/" && rm "$file"
  done
  sleep "$INTERVAL" & wait $!
done
