-- prefix, id → nil when not queued, else 1 for the job that is claimed next
-- An estimate between teams: they take turns, in the order of their counters, as if all jobs were
-- alike. It is exact within a team, and exactly 1 for the next one.
local id = ARGV[2]
local f = redis.call('HMGET', key('job', id), 'state', 'model', 'team')
if f[1] ~= 'queued' then return nil end
local rank = redis.call('ZRANK', key('queue', f[2], f[3]), id)
if not rank then return nil end
local position, before = rank + 1, true
for _, team in ipairs(redis.call('ZRANGE', key('active', f[2]), 0, -1)) do
  if team == f[3] then
    before = false
  else
    local turns = rank
    if before then turns = rank + 1 end
    position = position + math.min(redis.call('ZCARD', key('queue', f[2], team)), turns)
  end
end
return position
