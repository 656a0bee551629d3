-- prefix, model, worker, lane → nil, or {id, payload, epoch, last seq, suspect}
-- lane '1': the worker's slots are taken, and it has room beside them for a team that it runs nothing
-- for. It is the next in order all the same: a lane shortens a wait, and turns no order round.
local model, worker, lane = ARGV[2], ARGV[3], ARGV[4] == '1'
local t = now_ms()
local lease = redis.call('ZSCORE', key('workers'), worker)
-- Without a live lease nobody would notice the claimer's death.
if not lease or tonumber(lease) <= t then return nil end
local w = redis.call('HMGET', key('worker', worker), 'drain', 'paused', 'suspect')
if w[1] == '1' or w[2] == '1' or w[3] then return nil end
if redis.call('SISMEMBER', key('paused'), model) == 1 then return nil end

local function next_team()
  local active = key('active', model)
  local first = redis.call('ZRANGE', active, 0, 0, 'WITHSCORES')
  if not lane or not first[1] then return first[1] end
  local served = {}
  for _, id in ipairs(redis.call('SMEMBERS', key('worker', worker, 'jobs'))) do
    served[redis.call('HGET', key('job', id), 'team') or ''] = true
  end
  -- Whoever has just come stands level with the least of the others.
  for _, team in ipairs(redis.call('ZRANGEBYSCORE', active, first[2], first[2])) do
    if not served[team] then return team end
  end
end

while true do
  local team = next_team()
  if not team then return nil end
  local id = redis.call('ZRANGE', key('queue', model, team), 0, 0)[1]
  if not id then
    deactivate(model, team)
  else
    pull(id, model, team)
    local job = key('job', id)
    local f = redis.call('HMGET', job, 'payload', 'epoch', 'seq', 'suspect', 'deadline',
      'charged', 'prompt', 'weight')
    if f[1] and f[5] ~= '' and tonumber(f[5]) <= t then
      deactivate(model, team)
      conclude(id, DEADLINE, t)
    elseif f[1] then
      redis.call('HSET', job, 'state', 'running', 'worker', worker)
      redis.call('HSETNX', job, 'claimed_at', t)
      redis.call('SADD', key('worker', worker, 'jobs'), id)
      if f[4] == '1' then redis.call('HSET', key('worker', worker), 'suspect', id) end
      if f[6] == '0' then
        redis.call('HSET', job, 'charged', '1')
        charge(model, team, tonumber(f[7]), tonumber(f[8]))
      end
      deactivate(model, team)
      return {id, f[1], tonumber(f[2]), tonumber(f[3]), tonumber(f[4])}
    else
      deactivate(model, team)
    end
  end
end
